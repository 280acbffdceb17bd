package machine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Recording is what was written to a disk, in order, so that the disk can be made
// as a power cut at any time would have left it. The machine reaches such a disk
// through a small NBD server in this process.
//
//	guest ──virtio──> QEMU ──NBD──> Recording ──> the disk's image
//	                                   └── base image + write write flush write ...
//
// A write is in force once a flush was done after it. At a power cut, those after
// the last flush may be lost, each by itself.
type Recording struct {
	mu    sync.Mutex
	base  string // the image as it was at the start
	image *os.File
	size  int64
	ops   []Op
	cutAt int // the power is cut instead of this operation; negative: never
	cut   func()
}

// Op is a write, or a flush, which has no length. Zeros have no data.
type Op struct {
	Flush          bool
	Offset, Length int64
	Data           []byte
}

func (o Op) String() string {
	if o.Flush {
		return "flush"
	}
	return fmt.Sprintf("write of %d bytes at %#x", o.Length, o.Offset)
}

// errCut ends a disk whose power was cut.
var errCut = errors.New("the power was cut here")

// Record makes a disk record from now on. It must not be in a running machine.
func Record(t testing.TB, d *Disk) *Recording {
	t.Helper()
	r := &Recording{base: filepath.Join(t.TempDir(), "base"), cutAt: -1}
	err := copyFile(r.base, d.Path)
	if err == nil {
		r.image, err = os.OpenFile(d.Path, os.O_RDWR, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.image.Close() })
	if r.size, err = r.image.Seek(0, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	d.recording = r
	return r
}

// Ops returns what was recorded so far.
func (r *Recording) Ops() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ops[:len(r.ops):len(r.ops)]
}

// CutAt kills the machine instead of doing operation n, counted from 0 over all
// machines that the disk was in.
func (r *Recording) CutAt(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cutAt = n
}

// Image writes the image that a cut after the first n operations leaves. Writes
// after the last flush of those are in it unless lost says otherwise; nil loses
// none.
func (r *Recording) Image(path string, n int, lost func(Op) bool) error {
	if err := copyFile(path, r.base); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	ops, flushed := r.Ops()[:n], -1
	for i, op := range ops {
		if op.Flush {
			flushed = i
		}
	}
	for i, op := range ops {
		if op.Flush || i > flushed && lost != nil && lost(op) {
			continue
		}
		if err := op.apply(f); err != nil {
			return err
		}
	}
	return nil
}

// Restart makes the disk what a cut now leaves, see [Recording.Image], and records
// anew from there. The machine must be off.
func (r *Recording) Restart(lost func(Op) bool) error {
	left := r.base + "-left"
	if err := r.Image(left, len(r.Ops()), lost); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops, r.cutAt = nil, -1
	if err := os.Rename(left, r.base); err != nil {
		return err
	}
	return copyFile(r.image.Name(), r.base)
}

func (o Op) apply(f *os.File) error {
	data := o.Data
	if data == nil {
		data = make([]byte, o.Length)
	}
	_, err := f.WriteAt(data, o.Offset)
	return err
}

// add notes an operation and does it, or cuts the power.
func (r *Recording) add(op Op) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cutAt >= 0 && len(r.ops) >= r.cutAt {
		r.cut()
		return errCut
	}
	if !op.Flush {
		if err := op.apply(r.image); err != nil {
			return err
		}
	}
	r.ops = append(r.ops, op)
	return nil
}

// Size implements blocks.
func (r *Recording) Size() int64 { return r.size }

// ReadAt implements [io.ReaderAt].
func (r *Recording) ReadAt(p []byte, off int64) (int, error) { return r.image.ReadAt(p, off) }

// WriteAt implements [io.WriterAt]; it keeps p.
func (r *Recording) WriteAt(p []byte, off int64) (int, error) {
	return len(p), r.add(Op{Offset: off, Length: int64(len(p)), Data: p})
}

// Zero implements blocks.
func (r *Recording) Zero(off, length int64) error { return r.add(Op{Offset: off, Length: length}) }

// Sync implements blocks.
func (r *Recording) Sync() error { return r.add(Op{Flush: true}) }

// serve gives the disk to one machine, over a socket that it returns. cut kills
// that machine. Once it is off, settle returns when the disk is at rest.
func (r *Recording) serve(socket string, cut func()) (settle func(), err error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.cut = cut
	r.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := l.Accept()
		l.Close()
		if err != nil {
			return
		}
		defer conn.Close()
		serveNBD(conn, r) // it ends with an error whenever a machine is killed
	}()
	return func() { l.Close(); <-ended }, nil
}
