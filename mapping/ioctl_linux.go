package mapping

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/secret"
)

// The structures of linux/dm-ioctl.h.
const (
	ioctlSize  = 312
	targetSize = 40
)

var (
	_ = [1]struct{}{}[unsafe.Sizeof(unix.DmIoctl{})-ioctlSize]
	_ = [1]struct{}{}[unsafe.Sizeof(unix.DmTargetSpec{})-targetSize]
	_ = [1]struct{}{}[unsafe.Sizeof(unix.DmTargetMsg{})-8]
)

// message is what one ioctl takes and gives back: a dm_ioctl and its payload in
// one buffer, which may hold a key.
type message struct {
	unix.DmIoctl
	buf *secret.Bytes
}

// newMessage returns a message about a mapping, with room for a payload.
func newMessage(name, uuid string, flags uint32, room int) *message {
	m := &message{buf: secret.New(ioctlSize + room)}
	m.Version = [3]uint32{unix.DM_VERSION_MAJOR, 0, 0} // the oldest: the kernel takes what is not newer than its own
	m.Data_size, m.Data_start = uint32(m.buf.Len()), ioctlSize
	m.Flags = flags
	copy(m.Name[:], name)
	copy(m.Uuid[:], uuid)
	return m
}

func (m *message) wipe() { m.buf.Wipe() }

// payload is what follows the dm_ioctl: what was put there, or what the kernel
// put there.
func (m *message) payload() []byte {
	if start := int(m.Data_start); start <= m.buf.Len() {
		return m.buf.Bytes()[start:]
	}
	return nil
}

func (m *message) encode() {
	if _, err := binary.Encode(m.buf.Bytes(), binary.NativeEndian, &m.DmIoctl); err != nil {
		panic(err) // the buffer is larger
	}
}

func (m *message) decode() {
	if _, err := binary.Decode(m.buf.Bytes(), binary.NativeEndian, &m.DmIoctl); err != nil {
		panic(err)
	}
}

// text returns a field of the kernel's up to its NUL.
func text(p []byte) string {
	before, _, _ := bytes.Cut(p, []byte{0})
	return string(before)
}

// number returns the device number, which the kernel encodes as glibc does
// (huge_encode_dev).
func (m *message) number() Number { return Number{unix.Major(m.Dev), unix.Minor(m.Dev)} }

// control is the device-mapper.
type control struct{ file *os.File }

// dial opens the device-mapper, making its node when no udev and no devtmpfs did.
func dial() (*control, error) {
	const path = "/dev/mapper/control"
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err = makeControlNode(path); err == nil {
			file, err = os.OpenFile(path, os.O_RDWR, 0)
		}
	}
	switch {
	case err == nil:
		return &control{file}, nil
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("%w (%w)", ErrNoDeviceMapper, err)
	}
	return nil, fmt.Errorf("open the device-mapper: %w", err)
}

func (c *control) close() { c.file.Close() }

// do runs one ioctl. The message is encoded before and decoded after it.
func (c *control) do(cmd uintptr, m *message) error {
	m.encode()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, c.file.Fd(), cmd, uintptr(unsafe.Pointer(unsafe.SliceData(m.buf.Bytes()))))
	if errno != 0 {
		return errno
	}
	m.decode()
	return nil
}

// simple runs an ioctl that needs no payload and answers none.
func (c *control) simple(cmd uintptr, name string, flags uint32) error {
	m := newMessage(name, "", flags, 0)
	defer m.wipe()
	return c.do(cmd, m)
}

// create makes a device without a table.
func (c *control) create(name, uuid string) (Number, error) {
	m := newMessage(name, uuid, 0, 0)
	defer m.wipe()
	err := c.do(unix.DM_DEV_CREATE, m)
	return m.number(), err
}

// load gives the device a table, which counts from resume on.
func (c *control) load(name string, t *Table, key []byte, readOnly bool) error {
	flags := uint32(unix.DM_SECURE_DATA_FLAG)
	if readOnly {
		flags |= unix.DM_READONLY_FLAG
	}
	m := loadMessage(name, flags, t, key)
	defer m.wipe()
	return c.do(unix.DM_TABLE_LOAD, m)
}

func loadMessage(name string, flags uint32, t *Table, key []byte) *message {
	arguments := t.arguments(key)
	defer arguments.Wipe()
	room := (targetSize + arguments.Len() + 1 + 7) &^ 7 // a NUL, and the next target aligned
	m := newMessage(name, "", flags, room)
	m.Target_count = 1
	spec := unix.DmTargetSpec{Length: uint64(t.Sectors), Next: uint32(room)}
	copy(spec.Target_type[:], target)
	if _, err := binary.Encode(m.payload(), binary.NativeEndian, &spec); err != nil {
		panic(err)
	}
	copy(m.payload()[targetSize:], arguments.Bytes())
	return m
}

// target is the device-mapper's name of dm-crypt.
const target = "crypt"

// resume makes a loaded table the live one.
func (c *control) resume(name string) error { return c.simple(unix.DM_DEV_SUSPEND, name, 0) }

// remove takes a device away, or with DM_DEFERRED_REMOVE when it is free.
func (c *control) remove(name string, flags uint32) error {
	return c.simple(unix.DM_DEV_REMOVE, name, flags)
}

// cancelDeferred takes back a deferred removal.
func (c *control) cancelDeferred(name string) error {
	const text = "@cancel_deferred_remove"
	m := newMessage(name, "", 0, 8+len(text)+1) // a dm_target_msg is a sector and a text
	defer m.wipe()
	copy(m.payload()[8:], text)
	return c.do(unix.DM_TARGET_MSG, m)
}

// maxReply bounds what the kernel may want to answer. A table of dm-crypt has
// less than 1 KiB.
const maxReply = 1 << 20

// status returns what a mapping is. [ErrNotOpen] when there is none.
func (c *control) status(name string) (*Mapping, error) {
	for room := 4 << 10; ; room *= 4 {
		m := newMessage(name, "", unix.DM_STATUS_TABLE_FLAG|unix.DM_SECURE_DATA_FLAG|unix.DM_NOFLUSH_FLAG, room)
		err := c.do(unix.DM_TABLE_STATUS, m)
		if err == nil && m.Flags&unix.DM_BUFFER_FULL_FLAG != 0 && room < maxReply {
			m.wipe()
			continue
		}
		defer m.wipe()
		switch {
		case errors.Is(err, unix.ENXIO):
			return nil, fmt.Errorf("mapping %s: %w", name, ErrNotOpen)
		case err != nil:
			return nil, fmt.Errorf("mapping %s: ask for its state: %w", name, err)
		}
		return m.mapping()
	}
}

// mapping reads a status.
func (m *message) mapping() (*Mapping, error) {
	name := text(m.Name[:])
	out := &Mapping{
		Name: name, UUID: text(m.Uuid[:]), Path: nodePath(name), Number: m.number(),
		ReadOnly:  m.Flags&unix.DM_READONLY_FLAG != 0,
		Suspended: m.Flags&unix.DM_SUSPEND_FLAG != 0,
		Deferred:  m.Flags&unix.DM_DEFERRED_REMOVE != 0,
		OpenCount: int(m.Open_count),
		live:      m.Flags&unix.DM_ACTIVE_PRESENT_FLAG != 0,
	}
	p := m.payload()
	if !out.live || m.Target_count != 1 || len(p) < targetSize {
		return out, nil
	}
	var spec unix.DmTargetSpec
	if _, err := binary.Decode(p, binary.NativeEndian, &spec); err != nil {
		return nil, err
	}
	if text(spec.Target_type[:]) != target {
		return out, nil
	}
	arguments, _, _ := bytes.Cut(p[targetSize:], []byte{0})
	t, err := parseTable(int64(spec.Length), arguments)
	if err != nil {
		return nil, fmt.Errorf("mapping %s: %w", name, err)
	}
	out.Table = t
	return out, nil
}

// version returns the version of dm-crypt, loading it when it is a module.
// ErrNoDeviceMapper when there is none.
func (c *control) version() (v [3]uint32, err error) {
	m := newMessage(target, "", 0, 256)
	defer m.wipe()
	err = c.do(unix.DM_GET_TARGET_VERSION, m)
	switch {
	case errors.Is(err, unix.ENOTTY):
		return [3]uint32{1, 18, 1}, nil // Linux before 5.5 cannot be asked
	case errors.Is(err, unix.EINVAL):
		return v, fmt.Errorf("%w (no target %s)", ErrNoDeviceMapper, target)
	case err != nil:
		return v, fmt.Errorf("ask for the version of dm-crypt: %w", err)
	}
	var reply unix.DmTargetVersions
	if _, err := binary.Decode(m.payload(), binary.NativeEndian, &reply); err != nil {
		return v, fmt.Errorf("version of dm-crypt: %w", err)
	}
	return reply.Version, nil
}
