//go:build !linux

package luks

import "os"

// Lock excludes our own goroutines only: other systems have no cryptsetup.
func (f *File) Lock(bool) (release func(), err error) {
	f.mu.Lock()
	return f.mu.Unlock, nil
}

func readOnlyDevice(*os.File) bool { return false }

func dropCache(*os.File) {}

func systemOpenError(_ string, err error) error { return err }
