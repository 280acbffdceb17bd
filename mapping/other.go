//go:build !linux

package mapping

import (
	"os"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks1"
)

// Activate fails: only Linux has a device-mapper.
func Activate(*luks.Header, *luks.VolumeKey, *os.File, Options) (*Mapping, error) {
	return nil, ErrNoDeviceMapper
}

// ActivateLUKS1 fails: only Linux has a device-mapper.
func ActivateLUKS1(*luks1.Header, *luks1.Key, *os.File, Options) (*Mapping, error) {
	return nil, ErrNoDeviceMapper
}

// FindLUKS1 fails: only Linux has a device-mapper.
func FindLUKS1(*luks1.Header, string) (*Mapping, error) { return nil, ErrNoDeviceMapper }

// Status fails: only Linux has a device-mapper.
func Status(string) (*Mapping, error) { return nil, ErrNoDeviceMapper }

// Find fails: only Linux has a device-mapper.
func Find(*luks.Header, string) (*Mapping, error) { return nil, ErrNoDeviceMapper }

// Close fails: only Linux has a device-mapper.
func Close(string, CloseOptions) error { return ErrNoDeviceMapper }

// CancelDeferred fails: only Linux has a device-mapper.
func CancelDeferred(string) error { return ErrNoDeviceMapper }
