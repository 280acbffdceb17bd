package luks1

import "github.com/cryptctl/cryptctl/secret"

// Unseal is the call of luks.go, for the test of its panics.
var Unseal = unseal

// Extract is what luks.go gets to see of a slot.
func (h *Header) Extract(slot int) ([]byte, error) { return h.extract(slot) }

// Confirms is our own comparison with the digest.
func (h *Header) Confirms(key *secret.Bytes) bool { return h.confirms(key) }
