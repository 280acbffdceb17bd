package mapping_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

const (
	metadata   = 16 << 10
	dataOffset = 1 << 20
	deviceSize = dataOffset + 256<<10
	uuid       = "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b"
)

// memory is a luks.Device.
type memory []byte

func (m memory) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(m)) {
		return 0, io.EOF
	}
	n := copy(p, m[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }
func (m memory) Sync() error                              { return nil }
func (m memory) Size() int64                              { return int64(len(m)) }

// header makes a volume and returns its header after edits of the JSON, each a
// pair of what is there and what shall be there.
func header(t testing.TB, opts luks.FormatOptions, flags []string, edits ...string) *luks.Header {
	t.Helper()
	m := make(memory, deviceSize)
	opts.UUID, opts.MetadataSize, opts.DataOffset = uuid, metadata, dataOffset
	size := 64
	if opts.Cipher != "" {
		size = 32
	}
	key := luks.NewVolumeKey(size)
	defer key.Wipe()
	pass := secret.Copy([]byte("pass"))
	defer pass.Wipe()
	sealed, err := key.Seal(context.Background(), pass, kdf.Cost{Kind: kdf.PBKDF2, Hash: "sha256", Iterations: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := luks.Format(m, key, opts, luks.AddKeyslot(0, sealed, nil), luks.SetFlags(flags...)); err != nil {
		t.Fatal(err)
	}
	for at := range 2 {
		edit(t, m[at*metadata:(at+1)*metadata], edits)
	}
	h, err := luks.Read(m)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// edit changes one header copy and its checksum (LUKS2 specification, section
// 2.1: the UUID at 168, the checksum at 448).
func edit(t testing.TB, hdr []byte, edits []string) {
	t.Helper()
	for i := 0; i < len(edits); i += 2 {
		old, fresh := []byte(edits[i]), []byte(edits[i+1])
		in := hdr[4096:]
		if bytes.HasPrefix(hdr[168:], old) {
			in = hdr[168:208]
		}
		if !bytes.Contains(in, old) {
			t.Fatalf("the header has no %q", old)
		}
		out := bytes.Replace(in, old, fresh, 1)
		copy(in, append(out, make([]byte, len(old))...))
	}
	clear(hdr[448:512])
	sum := sha256.Sum256(hdr)
	copy(hdr[448:], sum[:])
}
