package durable

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Check is to be called after a sync, with any file of the same file system that
// is open for writing, such as a lock. It changes nothing in the file but the time
// of its last change, and may give it a block.
func Check(f *os.File) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 1)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EIO) {
		return fmt.Errorf("%s: the file system failed since it was synced: %w", f.Name(), err)
	}
	return nil // a full disk and a file system without such calls say nothing of the sync
}
