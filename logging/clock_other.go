//go:build !linux

package logging

import "time"

// sinceBoot: there is no log of a kernel to be dated.
func sinceBoot() time.Duration { return 0 }
