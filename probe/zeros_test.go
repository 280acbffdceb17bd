package probe_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cryptctl/cryptctl/probe"
)

// sizes are areas of zeros: tiny, at every border where the reading changes, and
// larger than any disk.
func sizes() []int64 {
	return []int64{
		1, 511, 512, 4095, 4096, 16383, 16384, 100_000, mib, 4*mib - 1, 4 * mib, 8 * mib, 8*mib + 1,
		64*mib - 1, 64 * mib, 64*mib + 1, 64*mib + 4096, 100 * mib, 1 << 40, 16<<40 + 512,
	}
}

func TestZerosAreEmpty(t *testing.T) {
	for _, size := range sizes() {
		a := &sparse{size: size}
		r := mustProbe(t, a)
		want := probe.Report{Size: size, Read: a.read}
		if diff := cmp.Diff(want, r); diff != "" || !r.Empty() {
			t.Errorf("%d zeros: empty is %v (-want +got):\n%s", size, r.Empty(), diff)
		}
		if found, err := probe.Signatures(a); err != nil || found != nil {
			t.Errorf("%d zeros: signatures %v, %v", size, found, err)
		}
	}
}

// TestOneByte: one byte that is not zero, anywhere in the first or last 4 MiB or
// anywhere in an area of up to 64 MiB, is found, and at its own offset.
func TestOneByte(t *testing.T) {
	t.Parallel()
	check := func(t *rapid.T) {
		size := rapid.OneOf(rapid.Int64Range(1, 64*mib), rapid.Int64Range(64*mib, 1<<44), rapid.SampledFrom(sizes())).Draw(t, "size")
		edge := size
		if size > 64*mib {
			edge = 4 * mib
		}
		offset := rapid.Int64Range(0, edge-1).Draw(t, "offset")
		if rapid.Bool().Draw(t, "from the end") {
			offset = size - 1 - offset
		}
		// 0x01 is no signature of one byte, so nothing else can name it.
		r, err := probe.Probe(&sparse{size: size, pieces: []piece{{offset, "\x01"}}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]at{{"data", offset}}, places(r.Findings)); diff != "" || r.Empty() {
			t.Fatalf("empty is %v (-want +got):\n%s", r.Empty(), diff)
		}
	}
	rapid.Check(t, check)
}

// TestBetween: data between the edges of a large area is found where it is no
// smaller than the distance of two samples, and wherever it lies at a border of
// the 512 parts.
func TestBetween(t *testing.T) {
	t.Parallel()
	check := func(t *rapid.T) {
		size := rapid.Int64Range(64*mib+1, 1<<44).Draw(t, "size")
		part := rapid.Int64Range(1, 511).Draw(t, "part")
		border := size / 512 * part
		if border < 5*mib || border > size-5*mib {
			t.Skip("in an edge")
		}
		start := rapid.Int64Range(4*mib, size-4*mib-size/512-8192).Draw(t, "start")
		for _, a := range []*filled{{size, border, border + 1}, {size, start, start + size/512 + 8192}} {
			r, err := probe.Probe(a)
			if err != nil {
				t.Fatal(err)
			}
			if r.Empty() {
				t.Fatalf("the bytes [%d, %d) of %d are not seen", a.start, a.end, size)
			}
		}
	}
	rapid.Check(t, check)
}

// filled is zero but for the bytes in [start, end). Of those it shows the first
// and the last of every read: that is enough, and quick.
type filled struct{ size, start, end int64 }

func (f *filled) Size() int64 { return f.size }

func (f *filled) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if from, to := max(off, f.start), min(off+int64(len(b)), f.end); from < to {
		b[from-off], b[to-1-off] = 1, 1
	}
	return len(b), nil
}

// TestCost: a device of any size costs a bounded amount of reading, and the
// report says how much.
func TestCost(t *testing.T) {
	for _, size := range sizes() {
		a := &sparse{size: size}
		r := mustProbe(t, a)
		limit := int64(16*mib + 64<<10)
		if size <= 64*mib {
			limit = size + mib
		}
		if r.Read != a.read || r.Read > limit || size <= 64*mib && r.Read < size {
			t.Errorf("%d bytes: read %d, reported %d, limit %d", size, a.read, r.Read, limit)
		}
		a.read = 0
		if _, err := probe.Signatures(a); err != nil {
			t.Fatal(err)
		}
		if limit := min(size, 2*mib) + 64<<10; a.read > limit {
			t.Errorf("%d bytes: the signatures alone read %d, limit %d", size, a.read, limit)
		}
	}
}

func TestErrors(t *testing.T) {
	const size = 1 << 30
	tests := []struct {
		name string
		area probe.Area
		want error
		text string
	}{
		{"bad first sector", &sparse{size: size, bad: 1}, errBad, "at byte 0"},
		{"bad sector in the tail", &sparse{size: size, bad: size - 1}, errBad, fmt.Sprint("at byte ", size-4*mib)},
		{"bad sector at a sample", &sparse{size: size, bad: size / 2}, errBad, fmt.Sprint("at byte ", size/2-8192)},
		{"bad sector at a signature", &sparse{size: size, bad: 64*mib + 0x40}, errBad, fmt.Sprint("at byte ", 64*mib+0x40)},
		{"shorter than it says", short{io.NewSectionReader(strings.NewReader("few bytes"), 0, 9)}, io.ErrUnexpectedEOF, "stopped after 9"},
		{"no bytes", &sparse{}, nil, "has 0 bytes"},
		{"fewer than none", &sparse{size: -1}, nil, "has -1 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, err := probe.Probe(test.area)
			if err == nil || !strings.Contains(err.Error(), test.text) || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v with %q", err, test.want, test.text)
			}
			if diff := cmp.Diff(probe.Report{}, r); diff != "" {
				t.Errorf("a report beside the error:\n%s", diff)
			}
		})
	}
}

// short says that it has 100 bytes.
type short struct{ io.ReaderAt }

func (short) Size() int64 { return 100 }
