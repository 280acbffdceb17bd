//go:build linux

package main

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// searchKey returns the keyrings of this process in which it finds a key.
func searchKey(k wire.Key) (found []string, err error) {
	for name, ring := range map[string]int{
		"thread": unix.KEY_SPEC_THREAD_KEYRING, "process": unix.KEY_SPEC_PROCESS_KEYRING,
		"session": unix.KEY_SPEC_SESSION_KEYRING, "user": unix.KEY_SPEC_USER_KEYRING,
		"user session": unix.KEY_SPEC_USER_SESSION_KEYRING,
	} {
		_, err := unix.KeyctlSearch(ring, k.Type, k.Description, 0)
		switch {
		case err == nil:
			found = append(found, name)
		case !errors.Is(err, unix.ENOKEY):
			return nil, err
		}
	}
	return found, nil
}
