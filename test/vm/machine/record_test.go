package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a cut leaves is what was flushed, and of the rest what was not lost.
func TestRecordingImage(t *testing.T) {
	d := NewDisk(t, 8192)
	write := func(path string, at int64, text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	write(d.Path, 0, "base")
	r := Record(t, d)
	cuts := 0
	r.cut = func() { cuts++ }
	put := func(at int64, text string) error {
		_, err := r.WriteAt([]byte(text), at)
		return err
	}
	if err := errors.Join(put(512, "one"), r.Sync(), put(1024, "two"), r.Zero(0, 4), put(1536, "three")); err != nil {
		t.Fatal(err)
	}
	all := func(Op) bool { return true }
	for _, c := range []struct {
		name string
		n    int
		lost func(Op) bool
		want string
	}{
		{"nothing done", 0, all, "base"},
		{"not flushed, lost", 1, all, "base"},
		{"not flushed, kept", 1, nil, "base one"},
		{"flushed", 2, all, "base one"},
		{"flushed before", 4, all, "base one"},
		{"all kept", 5, nil, "one two three"},
		{"one lost", 5, func(op Op) bool { return op.Offset == 1024 }, "one three"},
	} {
		path := filepath.Join(t.TempDir(), "image")
		if err := r.Image(path, c.n, c.lost); err != nil {
			t.Fatal(err)
		}
		image, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got := string(bytes.Join(bytes.FieldsFunc(image, func(c rune) bool { return c == 0 }), []byte(" ")))
		if len(image) != 8192 || got != c.want {
			t.Errorf("%s: an image of %d bytes with %q, want %q", c.name, len(image), got, c.want)
		}
	}
	r.CutAt(6)
	if err := r.Sync(); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(d.Path)
	if err := put(2048, "late"); !errors.Is(err, errCut) || cuts != 1 {
		t.Errorf("operation 6 ends with %v after %d cuts", err, cuts)
	}
	if after, _ := os.ReadFile(d.Path); !bytes.Equal(before, after) || len(r.Ops()) != 6 {
		t.Errorf("what was cut is on the disk, and is operation %d", len(r.Ops()))
	}
	if err := errors.Join(r.Restart(nil), put(2048, "late"), r.Restart(all)); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(d.Path); !bytes.Equal(before, after) || len(r.Ops()) != 0 {
		t.Errorf("a restart with all lost leaves what was not flushed, and %d operations", len(r.Ops()))
	}
}

// QEMU is the client in the scenarios; this says what is wrong when it hangs up.
func TestServeNBD(t *testing.T) {
	r := Record(t, NewDisk(t, 1<<20))
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- serveNBD(theirs, r); theirs.Close() }()
	send := func(parts ...any) {
		t.Helper()
		for _, p := range parts {
			if err := binary.Write(ours, binary.BigEndian, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	receive := func(n int) []byte {
		t.Helper()
		p := make([]byte, n)
		if _, err := io.ReadFull(ours, p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if got := receive(18); !bytes.HasPrefix(got, []byte("NBDMAGICIHAVEOPT")) {
		t.Fatalf("greeting %q", got)
	}
	send(uint32(nbdFixedNewstyle))
	send(uint64(nbdOptionMagic), uint32(8), uint32(0)) // structured replies
	if got := binary.BigEndian.Uint32(receive(20)[12:]); got != nbdRepUnsup {
		t.Fatalf("an unknown option is answered by %#x", got)
	}
	send(uint64(nbdOptionMagic), uint32(nbdOptGo), uint32(6), make([]byte, 6))
	if got := receive(20 + 12 + 20); binary.BigEndian.Uint64(got[22:]) != 1<<20 {
		t.Fatalf("the export is of another size: %x", got)
	}
	content := bytes.Repeat([]byte("data"), 128)
	request := func(command uint16, offset, length int, data []byte) []byte {
		t.Helper()
		send(nbdRequest{Magic: nbdRequestMagic, Command: command, Cookie: 7, Offset: uint64(offset), Length: uint32(length)})
		if data != nil {
			send(data)
		}
		head := receive(16)
		if binary.BigEndian.Uint32(head[4:]) != 0 || binary.BigEndian.Uint64(head[8:]) != 7 {
			t.Fatalf("command %d is answered by %x", command, head)
		}
		if command != nbdRead {
			return nil
		}
		return receive(length)
	}
	request(nbdWrite, 4096, 512, content)
	request(nbdFlush, 0, 0, nil)
	request(nbdTrim, 4096, 256, nil)
	if got := request(nbdRead, 4096, 512, nil); !bytes.Equal(got, append(make([]byte, 256), content[256:]...)) {
		t.Errorf("read back: %q", got)
	}
	var ops []string
	for _, op := range r.Ops() {
		ops = append(ops, op.String())
	}
	if diff := cmp.Diff([]string{"write of 512 bytes at 0x1000", "flush", "write of 256 bytes at 0x1000"}, ops); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	send(nbdRequest{Magic: nbdRequestMagic, Command: nbdDisconnect})
	if err := <-ended; err != nil {
		t.Errorf("the client left and the server says %v", err)
	}
}
