//go:build !linux

package secret

func mapPages(int) (page []byte, locked, ok bool) { return nil, false, false }

func unmapPages([]byte) {}

// DisableCoreDumps does nothing on this system.
func DisableCoreDumps() error { return nil }
