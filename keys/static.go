package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/cryptctl/cryptctl/secret"
)

// Static provides the bytes of a configured passphrase, as they are.
type Static struct {
	Passphrase *secret.Bytes
}

// Enroll implements [Provider].
func (s Static) Enroll(ctx context.Context, req Request) (*secret.Bytes, json.RawMessage, error) {
	p, err := s.Recover(ctx, req, nil)
	return p, nil, err
}

// Recover implements [Provider].
func (s Static) Recover(context.Context, Request, json.RawMessage) (*secret.Bytes, error) {
	if s.Passphrase.Len() == 0 {
		return nil, fmt.Errorf("%w: the passphrase is empty", ErrDenied)
	}
	return s.Passphrase.Clone(), nil
}

// NodeID provides the node's UUID followed by the volume's name: it ties a disk
// to a machine and keeps nothing secret from whoever has both.
type NodeID struct {
	UUID string // 36 characters, as SMBIOS gives it, lower case
	// Strict also refuses, for new keys, UUIDs that are known to be shared by
	// many machines, and patterns that no generator makes.
	Strict bool
}

// Enroll implements [Provider].
func (n NodeID) Enroll(ctx context.Context, req Request) (*secret.Bytes, json.RawMessage, error) {
	if n.Strict {
		if err := n.checkStrict(); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrDenied, err)
		}
	}
	p, err := n.Recover(ctx, req, nil)
	return p, nil, err
}

// Recover implements [Provider].
func (n NodeID) Recover(_ context.Context, req Request, _ json.RawMessage) (*secret.Bytes, error) {
	if err := n.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	if req.Volume == "" {
		return nil, fmt.Errorf("%w: a nodeID key needs the name of its volume", ErrDenied)
	}
	return secret.Take([]byte(n.UUID + req.Volume)), nil
}

// check is the entropy check of Talos: no character may make up more than half
// of the UUID (internal/pkg/encryption/keys/nodeid.go).
func (n NodeID) check() error {
	if n.UUID == "" {
		return errors.New("the node has no UUID; give one with --node-uuid, or use another kind of key")
	}
	counts := map[rune]int{}
	for _, c := range n.UUID {
		if counts[c]++; counts[c] > len(n.UUID)/2 {
			return fmt.Errorf("the node UUID %s is mostly %q, so it does not identify the node; use another kind of key", n.UUID, c)
		}
	}
	return nil
}

// sharedUUIDs are SMBIOS UUIDs that vendors left at one value for
// whole product lines.
func sharedUUIDs() []string {
	return []string{
		"03000200-0400-0500-0006-000700080009", // AMI's default
		"00020003-0004-0005-0006-000700080009", // the same in the other byte order
		"12345678-1234-5678-90ab-cddeefaabbcc", // Insyde's default
		"78563412-3412-7856-90ab-cddeefaabbcc",
		"03020100-0504-0706-0809-0a0b0c0d0e0f", // bytes that count, in osquery's list too
		"00010203-0405-0607-0809-0a0b0c0d0e0f",
		"07090201-0103-0301-0807-060504030201",
		"fefefefe-fefe-fefe-fefe-fefefefefefe", // erased flash
		"4c4c4544-0000-2010-8020-80c04f202020", // Dell without a service tag
	}
}

// checkStrict goes beyond Talos: known junk, and fewer distinct digits or more
// repetition than a random UUID shows.
func (n NodeID) checkStrict() error {
	uuid := strings.ToLower(n.UUID)
	for _, shared := range sharedUUIDs() {
		if uuid == shared {
			return fmt.Errorf("the node UUID %s is a firmware default that many machines share; use another kind of key", n.UUID)
		}
	}
	digits := strings.ReplaceAll(uuid, "-", "")
	distinct := map[rune]bool{}
	for _, c := range digits {
		distinct[c] = true
	}
	// A random UUID shows fewer than 8 of 16 digits less than once in ten million.
	if len(distinct) < 8 {
		return fmt.Errorf("the node UUID %s has only %d different digits, so it is not random; use another kind of key", n.UUID, len(distinct))
	}
	for period := 1; period <= len(digits)/2; period++ {
		if strings.Repeat(digits[:period], len(digits)/period+1)[:len(digits)] == digits {
			return fmt.Errorf("the node UUID %s repeats itself, so it is not random; use another kind of key", n.UUID)
		}
	}
	if strings.HasPrefix(digits, "0123456789abcdef") {
		return fmt.Errorf("the node UUID %s counts up, so it is not random; use another kind of key", n.UUID)
	}
	return nil
}

// Salted appends a salt to every passphrase of another provider: with a salt
// that is kept in STATE, a volume opens only where STATE was opened first
// (lockToState).
type Salted struct {
	Provider Provider
	Salt     *secret.Bytes // 32 bytes
}

// SaltSize is the length of a salt in bytes.
const SaltSize = 32

// Enroll implements [Provider].
func (s Salted) Enroll(ctx context.Context, req Request) (*secret.Bytes, json.RawMessage, error) {
	p, token, err := s.Provider.Enroll(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	p, err = s.season(p)
	return p, token, err
}

// Recover implements [Provider].
func (s Salted) Recover(ctx context.Context, req Request, token json.RawMessage) (*secret.Bytes, error) {
	p, _, err := s.RecoverFor(ctx, req, token)
	return p, err
}

// RecoverFor implements [Witness].
func (s Salted) RecoverFor(ctx context.Context, req Request, token json.RawMessage) (*secret.Bytes, string, error) {
	p, identity, err := recoverFor(ctx, s.Provider, req, token)
	if err != nil {
		return nil, "", err
	}
	p, err = s.season(p)
	return p, identity, err
}

// CheckToken implements [Checker].
func (s Salted) CheckToken(token json.RawMessage) error { return checkToken(s.Provider, token) }

func (s Salted) season(p *secret.Bytes) (*secret.Bytes, error) {
	defer p.Wipe()
	if s.Salt.Len() != SaltSize {
		return nil, fmt.Errorf("%w: the salt that is kept in STATE is not there", ErrUnavailable)
	}
	return secret.Concat(p, s.Salt), nil
}
