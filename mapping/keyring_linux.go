package mapping

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/secret"
)

// errNoKeyring: the kernel was built without keyrings.
var errNoKeyring = errors.New("the kernel has no keyring")

// withKey calls use on a thread that possesses the key as a logon key, and takes
// the key out again. A logon key can be used by the kernel and read by nobody;
// keyrings(7).
//
//	thread keyring ──> keyring "cryptctl" ──> logon key
//
// Only the thread itself can search its keyring, so no other program, and no
// other goroutine, gets at the key meanwhile. dm-crypt keeps a copy of its own.
// cryptsetup does the same since 2.8.7; before, the key hung at the thread
// keyring itself and stayed until the thread ended.
func withKey(description string, key *secret.Bytes, use func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		clean, err := useKey(description, key, use)
		if clean {
			runtime.UnlockOSThread()
		} // else the goroutine ends locked, and with it the thread and its keyring
		result <- err
	}()
	return <-result
}

// useKey is withKey on a thread of its own. It says whether the thread's keyring
// is as it was.
func useKey(description string, key *secret.Bytes, use func() error) (clean bool, err error) {
	ring, err := unix.AddKey("keyring", "cryptctl", nil, unix.KEY_SPEC_THREAD_KEYRING)
	switch {
	case errors.Is(err, unix.ENOSYS):
		return true, errNoKeyring
	case err != nil:
		return true, fmt.Errorf("make a keyring for the volume key: %w", err)
	}
	id, err := unix.AddKey("logon", description, key.Bytes(), ring)
	if err != nil {
		return unlink(ring) == nil, fmt.Errorf("put the volume key into the kernel keyring: %w", err)
	}
	err = use()
	// Revoking frees the key's bytes now; what unlinking leaves is collected later.
	_, revoked := unix.KeyctlInt(unix.KEYCTL_REVOKE, id, 0, 0, 0)
	if left := errors.Join(revoked, unlink(ring)); left != nil {
		return false, errors.Join(err, fmt.Errorf("take the volume key out of the kernel keyring: %w", left))
	}
	return true, err
}

func unlink(ring int) error {
	_, err := unix.KeyctlInt(unix.KEYCTL_UNLINK, ring, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	return err
}
