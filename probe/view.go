package probe

import (
	"errors"
	"fmt"
	"io"
)

// view is an area of which both ends are in memory, so that every search sees
// the same bytes and the device reads them once.
type view struct {
	area Area
	size int64
	from int64  // bytes below it are disregarded and show as zero
	head []byte // the bytes from 0
	tail []byte // the bytes up to size
	read int64  // bytes read from the area
}

// newView reads up to window bytes of either end.
func newView(a Area, window int64) (*view, error) {
	v := &view{area: a, size: a.Size()}
	if v.size <= 0 {
		return nil, fmt.Errorf("the area says that it has %d bytes", v.size)
	}
	var err error
	if v.size <= 2*window {
		v.head, err = v.fetch(0, v.size)
		v.tail = v.head
		return v, err
	}
	if v.head, err = v.fetch(0, window); err != nil {
		return nil, err
	}
	v.tail, err = v.fetch(v.size-window, window)
	return v, err
}

// tailAt returns where the tail begins.
func (v *view) tailAt() int64 { return v.size - int64(len(v.tail)) }

// disregard makes the bytes below from show as zero.
func (v *view) disregard(from int64) {
	v.from = from
	v.mask(0, v.head)
	v.mask(v.tailAt(), v.tail)
}

// mask zeroes the part of b, which begins at byte off, that is disregarded.
func (v *view) mask(off int64, b []byte) {
	if off < v.from {
		clear(b[:min(v.from-off, int64(len(b)))])
	}
}

// at returns n bytes from off, or nil if the area does not have them. The
// caller must not change them.
func (v *view) at(off, n int64) ([]byte, error) {
	switch {
	case off < 0 || n <= 0 || n > v.size || off > v.size-n:
		return nil, nil
	case off+n <= int64(len(v.head)):
		return v.head[off : off+n], nil
	case off >= v.tailAt():
		return v.tail[off-v.tailAt():][:n], nil
	}
	b, err := v.fetch(off, n)
	if err != nil {
		return nil, err
	}
	v.mask(off, b)
	return b, nil
}

func (v *view) fetch(off, n int64) ([]byte, error) {
	b := make([]byte, n)
	got, err := v.area.ReadAt(b, off)
	v.read += int64(got)
	if int64(got) == n {
		return b, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return nil, fmt.Errorf("read of %d bytes at byte %d of %d stopped after %d: %w", n, off, v.size, got, err)
}
