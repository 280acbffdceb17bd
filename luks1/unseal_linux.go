package luks1

import (
	"errors"
	"fmt"
	"os"
	"reflect"

	reader "github.com/anatol/luks.go"
	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/secret"
)

// unseal has luks.go open slot 0 of a volume, given as bytes: a file in memory,
// since luks.go takes a path. It returns nil when the passphrase does not open
// the slot. A panic is an error.
func unseal(volume []byte, passphrase *secret.Bytes) (key *secret.Bytes, err error) {
	defer func() {
		if p := recover(); p != nil {
			key, err = nil, fmt.Errorf("luks.go gave up on the header: %v", p)
		}
	}()
	fd, err := unix.MemfdCreate("luks1", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "luks1")
	defer f.Close()
	if _, err := f.Write(volume); err != nil {
		return nil, fmt.Errorf("write a file in memory: %w", err)
	}
	dev, err := reader.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("luks.go: %w", err)
	}
	defer dev.Close()
	unsealed, err := dev.UnsealVolume(0, passphrase.Bytes())
	switch {
	case errors.Is(err, reader.ErrPassphraseDoesNotMatch):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("luks.go: %w", err)
	}
	return volumeKey(unsealed)
}

// volumeKey takes the volume key out of what luks.go returns. It keeps it in a
// field of its own, for mappings that it makes itself: without the protection of
// the key that package mapping has.
func volumeKey(v *reader.Volume) (*secret.Bytes, error) {
	field := reflect.ValueOf(v).Elem().FieldByName("key")
	if field.Kind() != reflect.Slice || field.Type().Elem().Kind() != reflect.Uint8 {
		return nil, errors.New("this version of luks.go keeps the volume key elsewhere; build with the pinned one")
	}
	return secret.Take(field.Bytes()), nil
}
