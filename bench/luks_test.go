package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// memoryDevice is a Device that costs nothing but copying.
type memoryDevice []byte

func (m memoryDevice) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, m[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m memoryDevice) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > m.Size() {
		return 0, fmt.Errorf("write of %d bytes at byte %d: beyond the end", len(p), off)
	}
	return copy(m[off:], p), nil
}

func (m memoryDevice) Sync() error { return nil }

func (m memoryDevice) Size() int64 { return int64(len(m)) }

// full is a device whose 32 slots are in use, each with a token of 800 bytes.
func full(b *testing.B) (memoryDevice, *luks.Header) {
	b.Helper()
	dev := make(memoryDevice, luks.DefaultDataOffset+1<<20)
	h, err := formatFull(context.Background(), dev)
	if err != nil {
		b.Fatal(err)
	}
	return dev, h
}

// one is a device with one slot, its header, its key and its passphrase. The
// slot's derivation is the cheapest there is.
func one(b *testing.B) (*luks.Header, *luks.VolumeKey, *secret.Bytes) {
	b.Helper()
	dev := make(memoryDevice, luks.DefaultDataOffset+1<<20)
	p := secret.Copy([]byte(passphrase(0)))
	key := luks.NewVolumeKey(luks.DefaultVolumeKeySize)
	b.Cleanup(func() { p.Wipe(); key.Wipe() })
	sealed, err := key.Seal(context.Background(), p, kdf.Light())
	if err != nil {
		b.Fatal(err)
	}
	h, err := luks.Format(dev, key, luks.FormatOptions{}, luks.AddKeyslot(0, sealed, nil))
	if err != nil {
		b.Fatal(err)
	}
	return h, key, p
}

// BenchmarkRead reads both copies and holds them against every rule.
func BenchmarkRead(b *testing.B) {
	dev, _ := full(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := luks.Read(dev); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTrust holds a header that was read against what we unlock.
func BenchmarkTrust(b *testing.B) {
	_, h := full(b)
	b.ReportAllocs()
	for b.Loop() {
		if refusals := h.Trust(kdf.Limits{}); len(refusals) > 0 {
			b.Fatal(refusals)
		}
	}
}

// BenchmarkLeftovers reads all room that no slot uses.
func BenchmarkLeftovers(b *testing.B) {
	h, _, _ := one(b)
	for b.Loop() {
		if left, err := h.Leftovers(); err != nil || len(left) > 0 {
			b.Fatal(left, err)
		}
	}
}

// BenchmarkDerive is the cheapest derivation, to be taken off the two that follow.
func BenchmarkDerive(b *testing.B) {
	_, _, p := one(b)
	params := kdf.Light().Salted()
	for b.Loop() {
		key, err := params.Derive(context.Background(), p, 64, kdf.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		key.Wipe()
	}
}

// BenchmarkUnlock decrypts an area, merges its stripes and checks the digest.
func BenchmarkUnlock(b *testing.B) {
	h, _, p := one(b)
	b.ReportAllocs()
	for b.Loop() {
		key, err := h.Unlock(context.Background(), p, luks.UnlockOptions{})
		if err != nil {
			b.Fatal(err)
		}
		key.Wipe()
	}
}

// BenchmarkSeal splits a key, encrypts the stripes, and opens them again.
func BenchmarkSeal(b *testing.B) {
	_, key, p := one(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := key.Seal(context.Background(), p, kdf.Light()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCommit changes a token of a full header: two copies written, both
// read back, and all unused room looked at.
func BenchmarkCommit(b *testing.B) {
	_, h := full(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		token := json.RawMessage(fmt.Sprintf(`{"type":"benchmark","keyslots":["0"],"n":%d}`, i))
		next, err := h.Commit(luks.SetToken(0, token))
		if err != nil {
			b.Fatal(err)
		}
		h = next
	}
}

// BenchmarkReplace gives a slot of a full header another area.
func BenchmarkReplace(b *testing.B) {
	dev := make(memoryDevice, luks.DefaultDataOffset+1<<20)
	key := luks.NewVolumeKey(luks.DefaultVolumeKeySize)
	defer key.Wipe()
	p := secret.Copy([]byte(passphrase(0)))
	defer p.Wipe()
	seal := func() *luks.SealedKey {
		sealed, err := key.Seal(context.Background(), p, kdf.Light())
		if err != nil {
			b.Fatal(err)
		}
		return sealed
	}
	var changes []luks.Change
	for slot := range luks.MaxSlots {
		changes = append(changes, luks.AddKeyslot(slot, seal(), largeToken(slot)))
	}
	h, err := luks.Format(dev, key, luks.FormatOptions{}, changes...)
	if err != nil {
		b.Fatal(err)
	}
	sealed := [2]*luks.SealedKey{seal(), seal()}
	for i := 0; b.Loop(); i++ {
		if h, err = h.Commit(luks.ReplaceKeyslot(31, sealed[i%2], nil)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBackup renders the header area.
func BenchmarkBackup(b *testing.B) {
	_, h := full(b)
	for b.Loop() {
		if err := h.Backup(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func TestLargeTokenIsAsLargeAsItSays(t *testing.T) {
	for _, slot := range []int{0, 31} {
		token := largeToken(slot)
		if len(token) != 800 || !json.Valid(token) || !bytes.Contains(token, fmt.Appendf(nil, `["%d"]`, slot)) {
			t.Errorf("token of slot %d: %d bytes: %s", slot, len(token), token)
		}
	}
}
