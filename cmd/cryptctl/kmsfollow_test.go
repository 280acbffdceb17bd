package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/wire"
)

// tailed is a key server whose log grows while nobody is connected, and whose
// streams end after a few records.
type tailed struct {
	wire.AdminClient
	end  uint64 // the last record
	ends func(connection int, asked *wire.TailAuditRequest) (records int, err error)

	connections int
	asked       []*wire.TailAuditRequest // to follow
}

func (s *tailed) TailAudit(_ context.Context, r *wire.TailAuditRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[wire.AuditRecord], error) {
	from := s.end + 1 - min(uint64(r.GetLastRecords()), s.end)
	if r.GetFrom() > 0 {
		from = r.GetFrom()
	}
	out := &tailedStream{err: io.EOF}
	upTo := s.end
	if r.GetFollow() {
		s.asked = append(s.asked, r)
		var n int
		if n, out.err = s.ends(s.connections, r); n >= 0 {
			upTo = max(s.end, from-1+uint64(n))
		}
	}
	for seq := from; seq <= upTo; seq++ {
		out.left = append(out.left, &wire.AuditRecord{Sequence: seq})
	}
	s.end = upTo
	return out, nil
}

type tailedStream struct {
	grpc.ClientStream
	left []*wire.AuditRecord
	err  error
}

func (s *tailedStream) Recv() (*wire.AuditRecord, error) {
	if len(s.left) == 0 {
		return nil, s.err
	}
	r := s.left[0]
	s.left = s.left[1:]
	return r, nil
}

// follow follows a server until it ends, and returns the records that were shown and
// the notes.
func (s *tailed) follow(t *testing.T, lines uint32, dial func(connection int) error) (shown []uint64, notes int, err error) {
	t.Helper()
	var out strings.Builder
	f := kmsFollower{
		kmsTail: &kmsTail{lines: lines, follow: true}, wait: time.Millisecond,
		note: func(error) { notes++ },
		dial: func() (*kmsAdmin, error) {
			s.connections++
			if dial != nil {
				if err := dial(s.connections); err != nil {
					return nil, err
				}
			}
			return &kmsAdmin{AdminClient: s}, nil
		},
	}
	err = f.follow(t.Context(), &kmsRecords{out: &out, json: true, follow: true})
	for line := range strings.Lines(out.String()) {
		var r struct{ Seq uint64 }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		shown = append(shown, r.Seq)
	}
	return shown, notes, err
}

// TestFollowGoesOn: what a connection that ends left out comes on the next one, and
// nothing comes twice.
func TestFollowGoesOn(t *testing.T) {
	t.Parallel()
	gone := &kmsRefusal{codes.Unavailable, "gone"}
	final := &kmsRefusal{codes.PermissionDenied, "no role"}
	for name, test := range map[string]struct {
		end   uint64
		lines uint32
		want  []uint64
	}{
		"last two":   {7, 2, []uint64{6, 7, 8, 9, 10, 11, 12}},
		"none":       {7, 0, []uint64{8, 9, 10, 11, 12, 13, 14}},
		"empty":      {0, 5, []uint64{1, 2, 3, 4, 5, 6, 7}},
		"empty none": {0, 0, []uint64{1, 2, 3, 4, 5, 6, 7}},
	} {
		s := &tailed{end: test.end}
		s.ends = func(connection int, asked *wire.TailAuditRequest) (int, error) {
			if len(s.asked) > 1 && asked.GetFrom() == 0 {
				t.Errorf("%s: connection %d begins anew: %v", name, connection, asked)
			}
			switch len(s.asked) {
			case 1:
				return 4, gone
			case 2:
				return 2, io.EOF
			case 3:
				return 0, &kmsRefusal{codes.Canceled, "a server that stops"}
			}
			return 1, final
		}
		shown, notes, err := s.follow(t, test.lines, func(connection int) error {
			switch connection {
			case 3, 4, 5:
				s.end++ // something happens meanwhile, once is enough
				if connection > 3 {
					s.end--
				}
				return gone
			}
			return nil
		})
		if !errors.Is(err, final) || !slices.Equal(shown[:min(len(shown), len(test.want))], test.want) || notes != 1 {
			t.Errorf("%s: %v, %d notes, %v", name, shown, notes, err)
		}
		for i, seq := range shown {
			if seq != shown[0]+uint64(i) {
				t.Errorf("%s: record %d is in the place of %d", name, seq, shown[0]+uint64(i))
			}
		}
	}
}

// TestFollowEnds: a server that was never there, and a log that is shorter than what
// was shown of it, end it.
func TestFollowEnds(t *testing.T) {
	t.Parallel()
	gone := &kmsRefusal{codes.Unavailable, "gone"}
	s := &tailed{end: 3}
	if shown, notes, err := s.follow(t, 2, func(int) error { return gone }); !errors.Is(err, gone) || shown != nil || notes != 0 || s.connections != 1 {
		t.Errorf("%v, %d notes, %d connections, %v", shown, notes, s.connections, err)
	}
	s = &tailed{end: 3, ends: func(int, *wire.TailAuditRequest) (int, error) { return 2, gone }}
	shown, _, err := s.follow(t, 2, func(connection int) error {
		if connection == 2 {
			s.end = 1
		}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "ends with record 1, and record 3 was there before") || !slices.Equal(shown, []uint64{2, 3}) {
		t.Errorf("%v, %v", shown, err)
	}
}

// TestFollowLocal: a directory is followed into its next file, and one that is no
// log is refused.
func TestFollowLocal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tail := &kmsTail{lines: 1, follow: true}
	if err := tail.local(t.Context(), dir, nil); err == nil || !strings.Contains(err.Error(), "has no audit log") {
		t.Errorf("an empty directory: %v", err)
	}
	l, err := audit.Open(dir, audit.Options{FileSize: 300})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	add := func(n int) {
		t.Helper()
		for i := range n {
			if err := l.Append(audit.Event{Op: "test", Detail: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(3)
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	var shown []string
	lines := writerFunc(func(p []byte) (int, error) {
		shown = append(shown, string(p[:strings.IndexByte(string(p), ' ')]))
		if len(shown) == 1 {
			add(4)
		}
		if len(shown) == 5 {
			stop()
		}
		return len(p), nil
	})
	if err := tail.local(ctx, dir, &kmsRecords{out: lines, follow: true}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if !slices.Equal(shown, []string{"3", "4", "5", "6", "7"}) {
		t.Errorf("%q", shown)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
