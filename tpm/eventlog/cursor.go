package eventlog

import (
	"encoding/binary"
	"errors"
)

// errShort is the first error of a cursor that was asked for more than is left.
var errShort = errors.New("it ends too early")

// cursor reads little-endian numbers and keeps the first error: what is read
// after one is zero.
type cursor struct {
	data []byte
	at   int
	err  error
}

// take returns the next n bytes, not copied, or nil.
func (c *cursor) take(n uint64) []byte {
	if c.err != nil {
		return nil
	}
	if n > uint64(len(c.data)-c.at) {
		c.err = errShort
		return nil
	}
	b := c.data[c.at:][:n:n]
	c.at += int(n)
	return b
}

// rest returns all bytes that are left.
func (c *cursor) rest() []byte { return c.take(uint64(c.left())) }

func (c *cursor) left() int { return len(c.data) - c.at }

func (c *cursor) u8() uint8 {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if b := c.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// uintn reads a number that is as wide as the firmware's addresses.
func (c *cursor) uintn(narrow bool) uint64 {
	if narrow {
		return uint64(c.u32())
	}
	return c.u64()
}

func (c *cursor) guid() guid {
	var g guid
	copy(g[:], c.take(uint64(len(g))))
	return g
}
