//go:build goexperiment.runtimesecret

package secret

import (
	"runtime"
	"runtime/secret"
)

func do(f func()) { secret.Do(f) }

// erase collects twice: what a finalizer or the first sweep held goes with the
// second.
func erase() {
	runtime.GC()
	runtime.GC()
}
