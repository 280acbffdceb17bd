package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Kind says what is wrong with a log.
type Kind string

// Kinds of faults.
const (
	Edited    Kind = "edited"    // a record's content is not what was written
	Missing   Kind = "missing"   // records were taken out before this one
	Reordered Kind = "reordered" // a record stands where another belongs
	Replaced  Kind = "replaced"  // the record before, or that of a head, is not the one that was written
	Cut       Kind = "cut"       // the log ends before a head that is known
	Torn      Kind = "torn"      // the last line has no end: a write that was cut off
	Foreign   Kind = "foreign"   // a line that is no record
)

// Fault is the first thing that is wrong with a log, and where.
type Fault struct {
	Kind Kind
	File string
	Line int    // from 1; 0 if it is no line's fault
	Seq  uint64 // the record that was expected there
	Text string
}

// Error gives file, line and what was found there.
func (f *Fault) Error() string {
	where := f.File
	if f.Line > 0 {
		where = fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	return fmt.Sprintf("audit log %s: %s: %s", where, f.Kind, f.Text)
}

// verifier follows the chain through the files of a log, given in order.
type verifier struct {
	heads []Head // known from elsewhere: each is held against the log where it lies in it

	first, last Head // the record before the first one read; the last one read
	begun       bool
	named       uint64 // the first record, by the name of the first file; 0 if not known
	torn        *Fault
	tail        int // bytes of the torn line
	each        func(line []byte, h Head) error
	offset      int64        // end of the last whole record in the current file
	skipped     int          // lines of it that were read before
	stop        func() error // asked before each record
}

// read checks one file. The first file of a log that was archived in part may
// begin anywhere: what is before it is taken as it says.
func (v *verifier) read(name string, r io.Reader) error {
	if v.torn != nil {
		return v.torn // a torn line in the middle of a log is an edit
	}
	v.offset = 0
	lines := bufio.NewReaderSize(r, MaxLine)
	for n := v.skipped + 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case errors.Is(err, io.EOF):
			v.tail, v.torn = len(line), &Fault{Torn, name, n, v.last.Seq + 1, fmt.Sprintf("%d bytes without a line end", len(line))}
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
			return &Fault{Foreign, name, n, v.last.Seq + 1, fmt.Sprintf("a line of more than %d bytes", MaxLine)}
		default:
			return fmt.Errorf("audit log %s: %w", name, err)
		}
		if v.stop != nil {
			if err := v.stop(); err != nil {
				return err
			}
		}
		if f := v.record(line); f != nil {
			f.File, f.Line = name, n
			return f
		}
		v.offset += int64(len(line))
		if v.each != nil {
			if err := v.each(line, v.last); err != nil {
				return err
			}
		}
	}
}

// record takes one line into the chain.
func (v *verifier) record(line []byte) *Fault {
	want := v.last.Seq + 1
	p, err := parse(line)
	switch {
	case errors.Is(err, errHash):
		return &Fault{Kind: Edited, Seq: want, Text: fmt.Sprintf("record %d: %v", p.head.Seq, err)}
	case err != nil:
		return &Fault{Kind: Foreign, Seq: want, Text: err.Error()}
	}
	if !v.begun {
		if v.named > 0 && p.head.Seq != v.named {
			return &Fault{Kind: Missing, Seq: v.named, Text: fmt.Sprintf("record %d stands where %d belongs", p.head.Seq, v.named)}
		}
		v.begun, v.first = true, Head{p.head.Seq - 1, p.prev}
		v.last = v.first
		want = p.head.Seq
		if want == 1 && p.prev != (Head{}).Hash {
			v.begun, v.first, v.last = false, Head{}, Head{}
			return &Fault{Kind: Replaced, Seq: 1, Text: "record 1 names a record before it"}
		}
	}
	switch {
	case p.head.Seq > want:
		return &Fault{Kind: Missing, Seq: want, Text: fmt.Sprintf("record %d stands where %d belongs", p.head.Seq, want)}
	case p.head.Seq < want:
		return &Fault{Kind: Reordered, Seq: want, Text: fmt.Sprintf("record %d stands where %d belongs", p.head.Seq, want)}
	case p.prev != v.last.Hash:
		return &Fault{Kind: Replaced, Seq: want, Text: fmt.Sprintf("record %d was written after another record %d than this one", want, want-1)}
	}
	v.last = p.head
	for _, h := range v.heads {
		if h.Seq == v.last.Seq && h.Hash != v.last.Hash {
			return &Fault{Kind: Replaced, Seq: want, Text: fmt.Sprintf("record %d is not the one that the head names", want)}
		}
	}
	return nil
}

// done says what only the end of the log shows: a cut, or a torn last line.
func (v *verifier) done(name string) error {
	for _, h := range v.heads {
		if h.Seq > v.last.Seq {
			return &Fault{Cut, name, 0, v.last.Seq + 1, fmt.Sprintf("the log ends with record %d, and record %d was written", v.last.Seq, h.Seq)}
		}
	}
	if v.torn != nil {
		return v.torn
	}
	return nil
}

// Report is what [Verify] found.
type Report struct {
	Files   int
	Records uint64
	First   uint64 // number of the first record; above 1 when older files were archived
	Last    Head
	// Before is the record before the first one, as that names it: the head of what
	// was archived before.
	Before Head
	// Unfinished is the length of a last line without an end, which no head
	// names: a write that is going on, or was killed. The next Open puts it aside.
	Unfinished int
}

// Verify checks the log in a directory against its own head file and against
// heads that were kept elsewhere. It needs no lock: a record that is being
// written meanwhile is not yet named by the head, and counts as unfinished. The
// Report counts what was read up to a [Fault], or until ctx ended.
func Verify(ctx context.Context, dir string, heads ...Head) (Report, error) {
	own, err := readHead(dir)
	if err != nil {
		return Report{}, err
	}
	return verify(ctx, dir, append(heads, own))
}

// VerifyArchive checks files of a log that lie in a directory of their own: there is
// no head, so that only heads from elsewhere show a cut end. One that lies before
// the first of the files, or behind the last one, is an error too.
func VerifyArchive(ctx context.Context, dir string, heads ...Head) (Report, error) {
	if names, err := files(dir); err == nil && len(names) == 0 {
		return Report{}, fmt.Errorf("%s has no file of an audit log", dir)
	}
	rep, err := verify(ctx, dir, heads)
	for _, h := range heads {
		if err == nil && h.Seq+1 < rep.First {
			return rep, fmt.Errorf("%s begins with record %d: that of the head, %d, is in an older file", dir, rep.First, h.Seq)
		}
		if err == nil && h.Seq+1 == rep.First && h != rep.Before {
			return rep, &Fault{Replaced, dir, 0, rep.First, fmt.Sprintf("record %d was written after another record %d than that of the head", rep.First, h.Seq)}
		}
	}
	return rep, err
}

func verify(ctx context.Context, dir string, heads []Head) (Report, error) {
	names, err := files(dir)
	if err != nil {
		return Report{}, err
	}
	v := verifier{heads: heads, stop: ctx.Err}
	var rep Report
	for _, name := range names {
		if err = v.file(filepath.Join(dir, name)); err != nil {
			break
		}
		rep.Files++
	}
	if err == nil {
		if err = v.done(dir); v.torn != nil && err == error(v.torn) {
			rep.Unfinished, err = v.tail, nil
		}
	}
	if v.begun {
		rep.First, rep.Before, rep.Last, rep.Records = v.first.Seq+1, v.first, v.last, v.last.Seq-v.first.Seq
	}
	return rep, err
}

func (v *verifier) file(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	first := firstOf(filepath.Base(path))
	switch {
	case v.torn != nil:
		return v.torn
	case !v.begun:
		v.named = first
	case first != v.last.Seq+1:
		return &Fault{Missing, path, 0, v.last.Seq + 1, fmt.Sprintf("the file begins with record %d, %d belongs here", first, v.last.Seq+1)}
	}
	return v.read(path, f)
}

// readHead reads the head file.
func readHead(dir string) (Head, error) {
	path := filepath.Join(dir, headName)
	f, err := os.Open(path)
	if err != nil {
		return Head{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, headSize+1))
	if err != nil {
		return Head{}, err
	}
	h, err := ParseHead(strings.TrimRight(string(bytes.TrimSuffix(text, []byte("\n"))), " "))
	if err != nil || len(text) != headSize {
		return Head{}, &Fault{Foreign, path, 1, 0, "not a head; it was changed or cut"}
	}
	return h, nil
}
