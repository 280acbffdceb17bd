package machine

import (
	"fmt"
	"io"
	"path"
	"strings"
)

// cpio writes an archive of the "newc" form, which the kernel unpacks as its
// first root file system (Documentation/driver-api/early-userspace/buffer-format.rst).
//
//	header: "070701" and 13 numbers of 8 hexadecimal digits
//	name, NUL, padding to 4 bytes; content, padding to 4 bytes
//	... and at the end an entry with the name TRAILER!!!
type cpio struct {
	w    io.Writer
	ino  int
	at   int64
	dirs map[string]bool
	err  error // the first
}

// Modes of entries, stat(2).
const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeChar = 0o020000
)

func newCpio(w io.Writer) *cpio { return &cpio{w: w, dirs: map[string]bool{".": true}} }

func (c *cpio) write(p []byte) {
	if c.err == nil {
		_, c.err = c.w.Write(p)
		c.at += int64(len(p))
	}
}

func (c *cpio) pad() {
	for c.at%4 != 0 && c.err == nil {
		c.write([]byte{0})
	}
}

// entry writes one member; device is the number of a device node.
func (c *cpio) entry(name string, mode int, content []byte, major, minor int) {
	c.ino++
	header := "070701"
	for _, n := range []int{c.ino, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name) + 1, 0} {
		header += fmt.Sprintf("%08x", n)
	}
	c.write([]byte(header + name + "\x00"))
	c.pad()
	c.write(content)
	c.pad()
}

// dir makes a directory and those above it.
func (c *cpio) dir(name string) {
	if name = clean(name); c.dirs[name] {
		return
	}
	c.dir(path.Dir(name))
	c.dirs[name] = true
	c.entry(name, modeDir|0o755, nil, 0, 0)
}

// file makes a file, and its directories.
func (c *cpio) file(name string, perm int, content []byte) {
	name = clean(name)
	c.dir(path.Dir(name))
	c.entry(name, modeFile|perm, content, 0, 0)
}

// char makes a character device.
func (c *cpio) char(name string, major, minor int) {
	name = clean(name)
	c.dir(path.Dir(name))
	c.entry(name, modeChar|0o600, nil, major, minor)
}

// close ends the archive and returns the first error.
func (c *cpio) close() error {
	c.entry("TRAILER!!!", 0, nil, 0, 0)
	return c.err
}

func clean(name string) string {
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name == "" {
		return "."
	}
	return name
}
