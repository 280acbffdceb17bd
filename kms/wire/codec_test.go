package wire_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/cryptctl/cryptctl/kms/wire"
)

var _ encoding.CodecV2 = wire.Codec{}

func request(n int) *wire.Request {
	return &wire.Request{NodeUuid: "a node", Data: []byte(strings.Repeat("a secret", n))}
}

// TestCodecBytes: the codec writes what gRPC's own writes and reads it, small or
// large, in one piece or in several.
func TestCodecBytes(t *testing.T) {
	theirs := encoding.GetCodecV2("proto")
	for _, n := range []int{0, 4, 128, 10_000} {
		want := request(n)
		ours, err := wire.Codec{}.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		text := ours.Materialize()
		other, err := theirs.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(text, other.Materialize()) {
			t.Errorf("%d: other bytes than gRPC's codec", n)
		}
		for _, parts := range []int{1, 3} {
			got := &wire.Request{}
			if err := (wire.Codec{}).Unmarshal(split(text, parts), got); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
				t.Errorf("%d in %d parts: %s", n, parts, d)
			}
		}
	}
}

// TestCodecWipes: after a message was sent, and after one was read, the memory it
// was in is zero.
func TestCodecWipes(t *testing.T) {
	for _, n := range []int{4, 128, 10_000} {
		out, err := wire.Codec{}.Marshal(request(n))
		if err != nil {
			t.Fatal(err)
		}
		text := out.Materialize()
		sent := out[0].ReadOnlyData()
		out.Free()
		for _, parts := range []int{1, 3} {
			in := split(text, parts)
			if err := (wire.Codec{}).Unmarshal(in, &wire.Request{}); err != nil {
				t.Fatal(err)
			}
			for _, part := range in {
				if !zero(part.ReadOnlyData()) {
					t.Errorf("%d in %d parts: what was read is left", n, parts)
				}
			}
		}
		if !zero(sent) {
			t.Errorf("%d: what was sent is left", n)
		}
	}
}

func TestCodecRefuses(t *testing.T) {
	if _, err := (wire.Codec{}).Marshal("text"); err == nil {
		t.Error("a text was encoded")
	}
	if err := (wire.Codec{}).Unmarshal(nil, new(string)); err == nil {
		t.Error("a text was decoded")
	}
	if err := (wire.Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer("\xff")}, &wire.Request{}); err == nil {
		t.Error("bytes that are no message were decoded")
	}
}

// split copies text into so many buffers.
func split(text []byte, parts int) mem.BufferSlice {
	var all mem.BufferSlice
	for i := range parts {
		all = append(all, mem.SliceBuffer(bytes.Clone(text[i*len(text)/parts:(i+1)*len(text)/parts])))
	}
	return all
}

func zero(b []byte) bool { return bytes.Count(b, []byte{0}) == len(b) }
