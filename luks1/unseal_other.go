//go:build !linux

package luks1

import (
	"errors"

	"github.com/cryptctl/cryptctl/secret"
)

// unseal fails: luks.go is for Linux.
func unseal([]byte, *secret.Bytes) (*secret.Bytes, error) {
	return nil, errors.New("LUKS1 volumes are unlocked on Linux only")
}
