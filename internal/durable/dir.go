package durable

import (
	"errors"
	"os"
)

// SyncDir makes what happened to the names in a directory durable: those that are
// new, renamed or gone.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
