package logging

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot is the kernel's clock, which its messages have.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
