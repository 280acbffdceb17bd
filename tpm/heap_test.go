package tpm

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// TestHeap: neither what is sealed, nor what is in the envelope, nor the auth value
// of a PIN, nor a PIN of systemd's is left in the Go heap, where it would stay for
// long; nor as the padded key of a MAC.
func TestHeap(t *testing.T) {
	dev := tpmtest.Start(t)
	tpmtest.Extend(t, dev, 7, "x")
	p, l := testPlan(nil), &link{context.Background(), dev}
	p.policy.PIN, p.pin.auth = true, secret.Random(32)
	s, err := seal(l, p)
	if err != nil {
		t.Fatal(err)
	}
	kek, err := s.unseal(l, p.pin.auth)
	if err != nil {
		t.Fatal(err)
	}
	// As systemd stretches a PIN: the PIN, what PBKDF2 makes of it, and its auth value.
	pin, salt := secret.Random(32), bytes.Repeat([]byte{7}, 32)
	salted, stretched := systemdPIN(pin, salt), pbkdf2(pin, salt, systemdRounds)
	text := encode(stretched)
	passphrase := secret.Random(44)
	box, err := closeEnvelope(kek, nil, nil, Opened{Passphrase: passphrase, Identity: "id"})
	if err != nil {
		t.Fatal(err)
	}
	o, err := openEnvelope(kek, nil, nil, box)
	if err != nil || !o.Passphrase.Equal(passphrase) || !kek.Equal(p.value) {
		t.Fatalf("what was sealed does not come back: %v", err)
	}
	marker := bytes.Repeat([]byte("marker"), 4)
	heap := heapDump(t)
	if !bytes.Contains(heap, marker) {
		t.Fatal("what is in the heap is not found in the dump of it")
	}
	for name, b := range map[string]*secret.Bytes{
		"the sealed key": kek, "the passphrase": passphrase, "the auth value": p.pin.auth,
		"the PIN": pin, "the stretched PIN": stretched, "its text": text, "its auth value": salted.auth,
	} {
		half := b.Len() / 2
		for _, piece := range [][]byte{b.Bytes()[:half], b.Bytes()[half:]} {
			for _, pad := range []byte{0, 0x36, 0x5c} { // as it is, and as HMAC has a key
				if n := bytes.Count(heap, padded(piece, pad)); n > 0 {
					t.Errorf("half of %s, XOR %#x, is in the heap %d times", name, pad, n)
				}
			}
		}
	}
}

func padded(b []byte, with byte) []byte {
	b = bytes.Clone(b)
	for i := range b {
		b[i] ^= with
	}
	return b
}

// heapDump returns all that is in the heap, whether anyone refers to it or not.
func heapDump(t *testing.T) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "heap"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	debug.WriteHeapDump(f.Fd())
	content, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return content
}
