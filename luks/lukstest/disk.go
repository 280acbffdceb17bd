package lukstest

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
)

// SectorSize is what a disk writes whole or not at all, in bytes.
const SectorSize = 512

// Op is one thing that was done to a [Disk]: a sync, or a write that changed it.
type Op struct {
	Sync   bool
	Offset int64
	Data   []byte // what reached the disk

	was []byte // what was there before
}

// String gives the operation for messages: "write of 512 at 4096".
func (o Op) String() string {
	if o.Sync {
		return "sync"
	}
	return fmt.Sprintf("write of %d at %d", len(o.Data), o.Offset)
}

// Disk is a luks.Device and a luks.Locker in memory. It remembers what was done
// to it since it was made: to look at one operation alone, run it on a
// [Disk.Clone]. It may be used by several goroutines at once.
type Disk struct {
	lock sync.RWMutex // what Lock hands out

	mu     sync.Mutex // guards the rest
	image  []byte
	ops    []Op
	fault  *Fault
	faults int // operations until the fault
}

// NewDisk returns a disk of size zero bytes.
func NewDisk(size int64) *Disk { return &Disk{image: make([]byte, size)} }

// DiskOf returns a disk with these contents, which are copied.
func DiskOf(image []byte) *Disk { return &Disk{image: bytes.Clone(image)} }

// Clone returns a disk with the same contents, without a past and without a
// fault.
func (d *Disk) Clone() *Disk { return &Disk{image: d.Bytes()} }

// Bytes returns a copy of the contents.
func (d *Disk) Bytes() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.image)
}

// View calls look with the contents, which look must neither change nor keep.
func (d *Disk) View(look func(image []byte)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	look(d.image)
}

// Size implements luks.Device.
func (d *Disk) Size() int64 { return int64(len(d.image)) }

// ReadAt implements [io.ReaderAt].
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at byte %d", off)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if off >= int64(len(d.image)) {
		return 0, io.EOF
	}
	n := copy(p, d.image[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements [io.WriterAt]. It never makes the disk longer.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || int64(len(p)) > d.Size()-off {
		return 0, fmt.Errorf("write of %d bytes at byte %d: beyond the end at byte %d", len(p), off, d.Size())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	data := p
	f := d.due()
	if f != nil {
		data = p[:f.reaches(p, off)]
	}
	if len(data) > 0 {
		at := d.image[off : off+int64(len(data))]
		d.ops = append(d.ops, Op{Offset: off, Data: bytes.Clone(data), was: bytes.Clone(at)})
		copy(at, data)
	}
	if f != nil && !f.Silent {
		return len(data), f.err()
	}
	return len(p), nil
}

// Sync implements luks.Device.
func (d *Disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.due(); f == nil {
		d.ops = append(d.ops, Op{Sync: true})
	} else if !f.Silent {
		return f.err()
	}
	return nil
}

// Lock implements luks.Locker. It waits without an end.
func (d *Disk) Lock(exclusive bool) (release func(), err error) {
	if exclusive {
		d.lock.Lock()
		return sync.OnceFunc(d.lock.Unlock), nil
	}
	d.lock.RLock()
	return sync.OnceFunc(d.lock.RUnlock), nil
}

// Ops returns what was done to the disk since it was made.
func (d *Disk) Ops() []Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.ops)
}

// Cut returns the disk as it was after the first ops operations, and the first
// sectors of the write that followed.
func (d *Disk) Cut(ops, sectors int) *Disk {
	c, rest := d.Clone(), d.Ops()
	rest = rest[min(ops, len(rest)):]
	c.undo(rest)
	if len(rest) > 0 {
		all := pieces(rest[0])
		for _, p := range all[:min(sectors, len(all))] {
			copy(c.image[p.at:], p.data)
		}
	}
	return c
}

// rewind takes back all that was done since the disk was made.
func (d *Disk) rewind() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.undo(d.ops)
	d.ops, d.fault = nil, nil
}

func (d *Disk) undo(ops []Op) {
	for _, o := range slices.Backward(ops) {
		copy(d.image[o.Offset:], o.was)
	}
}
