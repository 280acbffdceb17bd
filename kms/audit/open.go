package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cryptctl/cryptctl/internal/durable"
)

// ErrUnfit is wrapped by errors of [Open] about a log that is not what was written,
// or has lost its head, and that Options.Adopt takes as it is.
var ErrUnfit = errors.New("the audit log does not fit its head")

// unfit says what to do about such a log.
func unfit(dir string, err error) error {
	return &refusal{fmt.Errorf("%w; nothing was changed. Find out why and copy %s as evidence, then put back what is missing, or go on with what is there: cryptctl kms audit adopt %s", err, dir, dir)}
}

// refusal is an error that is ErrUnfit too, without its words.
type refusal struct{ error }

// Unwrap implements the interface of errors.Is.
func (r *refusal) Unwrap() []error { return []error{r.error, ErrUnfit} }

// Open opens the log in a directory, which is made if it is not there. What a
// kill or a power cut left of records that no one was told of is put aside into a
// file of its own. A log that ends before its head, or whose newest file is not
// what was written, is refused with [ErrUnfit] and a [Fault], and stays as it is: see
// [Options] for one that is meant to be so. Older files are left to [Verify].
func Open(dir string, o Options) (*Log, error) {
	if o.FileSize <= 0 {
		o.FileSize = DefaultFileSize
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	l := &Log{opts: o, next: newGroup(), turn: make(chan struct{}, 1), disk: disk{dir: dir, lock: lock, open: openFile}}
	note, err := l.recover()
	if err == nil && note != "" {
		err = l.Append(Event{Op: "recovered", Detail: note})
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return l, nil
}

// recover finds the end of the log and makes it ready for the next record. The
// note says what had to be done.
func (l *Log) recover() (note string, err error) {
	dir := l.disk.dir
	names, err := files(dir)
	if err != nil {
		return "", err
	}
	head, err := readHead(dir)
	switch {
	case err != nil && len(names) == 0: // new, or killed before the first record
		head = Head{}
	case err != nil && !lostHead(err):
		return "", err
	case err != nil && !l.opts.Adopt:
		return "", unfit(dir, fmt.Errorf("the head is lost: %w", err))
	case err != nil:
		note = "adopted: the head was missing or damaged"
	}
	v, path, err := newest(dir, names)
	var fault *Fault
	if err != nil && !errors.As(err, &fault) {
		return "", err
	}
	if err := against(head, v, dir, fault); err != nil {
		if !l.opts.Adopt {
			return "", unfit(dir, err)
		}
		note = "adopted: " + err.Error()
	}
	if path == "" {
		path = filepath.Join(dir, nameOf(v.last.Seq+1))
	}
	aside, err := putAside(path, v.offset)
	if err != nil {
		return "", err
	}
	if aside != "" && note == "" {
		note = "an unfinished write was put aside: " + aside
	}
	l.head = v.last
	return note, l.disk.begin(path, v.offset, v.last)
}

// lostHead tells a head that is missing or damaged from one that cannot be read
// now.
func lostHead(err error) bool {
	_, damaged := errors.AsType[*Fault](err)
	return damaged || errors.Is(err, fs.ErrNotExist)
}

// newest reads the last file of the log, or the one before it if a crash left
// the last one empty. path is the file to go on with.
func newest(dir string, names []string) (v *verifier, path string, err error) {
	v = &verifier{}
	for i := len(names) - 1; i >= 0; i-- {
		name := filepath.Join(dir, names[i])
		if path == "" {
			path = name
		}
		one := &verifier{}
		if err = one.file(name); !one.begun && err == nil && one.torn == nil && i > 0 {
			continue
		}
		if !one.begun && firstOf(names[i]) > 1 {
			continue // nothing whole in it: what came before is in the file before
		}
		if name != path { // path holds no whole record
			one.offset = 0
			one.torn = nil
		}
		return one, path, err
	}
	return v, path, err
}

// against holds the end that was found against the head. A damage after the
// head is an unfinished write; before it, someone else's.
func against(head Head, v *verifier, dir string, fault *Fault) error {
	switch {
	case v.last.Seq < head.Seq && fault != nil:
		return fault
	case v.last.Seq < head.Seq:
		return &Fault{Cut, dir, 0, v.last.Seq + 1, fmt.Sprintf("the log ends with record %d, and record %d was written", v.last.Seq, head.Seq)}
	case v.last.Seq == head.Seq && v.last.Hash != head.Hash:
		return &Fault{Replaced, dir, 0, head.Seq, fmt.Sprintf("record %d is not the one that the head names", head.Seq)}
	}
	return nil
}

// putAside moves what follows the last whole record into a file next to the log.
func putAside(path string, from int64) (name string, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || end == from {
		return "", err
	}
	dir := filepath.Dir(path)
	out, err := os.CreateTemp(dir, fmt.Sprintf("torn-%s-%d-*", filepath.Base(path), from))
	if err != nil {
		return "", err
	}
	defer out.Close()
	if _, err := io.Copy(out, io.NewSectionReader(f, from, end-from)); err != nil {
		return "", err
	}
	if err := errors.Join(out.Sync(), durable.SyncDir(dir)); err != nil {
		return "", err
	}
	if err := errors.Join(f.Truncate(from), f.Sync()); err != nil {
		return "", err
	}
	return filepath.Base(out.Name()), nil
}

// begin opens the file that records go to, and the head, which is synced before
// the first record: a log without a head is one that lost it.
func (d *disk) begin(path string, size int64, head Head) (err error) {
	if d.head, err = d.open(filepath.Join(d.dir, headName), os.O_RDWR|os.O_CREATE); err != nil {
		return err
	}
	if err := d.head.Truncate(headSize); err != nil {
		return err
	}
	if err := d.writeHead(head); err != nil {
		return err
	}
	if d.file, err = d.open(path, os.O_RDWR|os.O_CREATE); err != nil {
		return err
	}
	d.size = size
	return durable.SyncDir(d.dir)
}
