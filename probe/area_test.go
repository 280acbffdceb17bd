package probe_test

import (
	"cmp"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/cryptctl/cryptctl/probe"
)

const mib = 1 << 20

// sparse is an area of zeros but for some pieces. It counts what is read and
// fails where it is told to.
type sparse struct {
	size   int64
	pieces []piece
	bad    int64 // a read that touches this byte fails, if it is not 0
	read   int64
}

type piece struct {
	at   int64
	data string
}

func (s *sparse) Size() int64 { return s.size }

func (s *sparse) ReadAt(b []byte, off int64) (int, error) {
	end := off + int64(len(b))
	if off < 0 || end > s.size {
		return 0, io.EOF
	}
	if s.bad != 0 && off <= s.bad && s.bad < end {
		return int(s.bad - off), errBad
	}
	clear(b)
	for _, p := range s.pieces {
		if from, to := max(off, p.at), min(end, p.at+int64(len(p.data))); from < to {
			copy(b[from-off:to-off], p.data[from-p.at:to-p.at])
		}
	}
	s.read += int64(len(b))
	return len(b), nil
}

var errBad = errors.New("bad sector")

// file opens an image as an area.
func file(t *testing.T, path string) *io.SectionReader {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return io.NewSectionReader(f, 0, info.Size())
}

// image writes an image with the given pieces and returns its path.
func image(t *testing.T, path string, size int64, pieces ...piece) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		if _, err := f.WriteAt([]byte(p.data), p.at); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// at is a finding without its words.
type at struct {
	Kind   string
	Offset int64
}

// places returns the findings without their words, by offset.
func places(found []probe.Finding) []at {
	var list []at
	for _, f := range found {
		list = append(list, at{f.Kind, f.Offset})
	}
	slices.SortStableFunc(list, func(a, b at) int { return cmp.Compare(a.Offset, b.Offset) })
	return list
}

func mustProbe(t *testing.T, a probe.Area) probe.Report {
	t.Helper()
	r, err := probe.Probe(a)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
