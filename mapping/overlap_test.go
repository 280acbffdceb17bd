package mapping_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/secret"
)

// formatted makes a volume and returns its header and the device it is on.
func formatted(t *testing.T, opts luks.FormatOptions) (*luks.Header, memory) {
	t.Helper()
	m, key, pass := make(memory, deviceSize), luks.NewVolumeKey(64), secret.Copy([]byte("pass"))
	defer key.Wipe()
	defer pass.Wipe()
	sealed, err := key.Seal(context.Background(), pass, kdf.Cost{Kind: kdf.PBKDF2, Hash: "sha256", Iterations: 1000})
	if err != nil {
		t.Fatal(err)
	}
	opts.MetadataSize = metadata
	h, err := luks.Format(m, key, opts, luks.AddKeyslot(0, sealed, nil))
	if err != nil {
		t.Fatal(err)
	}
	return h, m
}

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, errors.New("medium error") }

func TestDataOverItsHeader(t *testing.T) {
	detached, on := formatted(t, luks.FormatOptions{Detached: true, UUID: uuid})
	if at := detached.Segments()[0].Offset; at != 0 {
		t.Fatalf("the data of the detached header begins at byte %d", at)
	}
	attached, itself := formatted(t, luks.FormatOptions{DataOffset: dataOffset, UUID: uuid})
	_, other := formatted(t, luks.FormatOptions{DataOffset: dataOffset})
	second := bytes.Clone(on) // its first copy is damaged
	clear(second[:metadata])
	for _, c := range []struct {
		name string
		h    *luks.Header
		data io.ReaderAt
		want string
	}{
		{"on itself", detached, on, "the data would lie over it"},
		{"on the same bytes elsewhere", detached, memory(bytes.Clone(on)), "the data would lie over it"},
		{"on itself, with one copy left", detached, memory(second), "the data would lie over it"},
		{"on a device of zeros", detached, make(memory, deviceSize), ""},
		{"on an empty device", detached, memory{}, ""},
		{"on another volume", detached, other, ""},
		{"data behind the header", attached, itself, ""},
		{"a device that fails", detached, failing{}, "medium error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			size := int64(deviceSize)
			if m, ok := c.data.(memory); ok {
				size = m.Size()
			}
			err := mapping.CheckOverlap(c.h, c.data, size)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("it says: %v\nwant: %s", err, c.want)
			}
		})
	}
}
