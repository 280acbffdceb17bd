//go:build vm

package vm_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/test/vm/machine"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// diskSize leaves room for a header, which takes 16 MiB, and some data.
const diskSize = 20 << 20

// bench is one machine for all tests about mappings, with disks to hand out.
type bench struct {
	*guest
	used, disks int
}

// blank returns a disk that was not used yet.
func (b *bench) blank(t *testing.T) string {
	t.Helper()
	if b.used++; b.used > b.disks {
		t.Fatalf("more than %d disks are needed", b.disks)
	}
	return fmt.Sprintf("/dev/vd%c", 'a'+b.used-1)
}

// volume makes a volume on a blank disk and returns its device.
func (b *bench) volume(t *testing.T, f wire.Format) string {
	t.Helper()
	f.Device, f.Passphrase = b.blank(t), passphrase
	b.do(t, "format", f, nil)
	return f.Device
}

func TestMapping(t *testing.T) {
	const large = 3 // mkfs.xfs wants 300 MB
	var disks []*machine.Disk
	for i := range 24 {
		size := int64(diskSize)
		if i < large {
			size = 400 << 20
		}
		disks = append(disks, machine.NewDisk(t, size))
	}
	b := &bench{boot(t, machine.Config{Disks: disks, Deadline: 8 * time.Minute}), 0, len(disks)}
	t.Run("reopen", b.reopen)
	b.used = large
	t.Run("tables", b.tables)
	t.Run("mixed", b.mixed)
	t.Run("detached", b.detached)
	t.Run("cryptsetup", b.foreign)
	t.Run("existing", b.existing)
	t.Run("busy", b.busy)
	t.Run("deferred", b.deferred)
	t.Run("nodes", b.nodes)
	t.Run("keys", b.key)
	t.Run("failures", b.failures)
	b.empty(t)
	b.PowerOff()
}

// reopen makes file systems on mapped volumes, writes files, closes and opens
// the volumes again.
func (b *bench) reopen(t *testing.T) {
	for _, c := range []struct{ kind, mkfs, cipher string }{
		{"ext4", "mkfs.ext4", ""},
		{"xfs", "mkfs.xfs", ""},
		{"ext4", "mkfs.ext4", "xchacha20,aes-adiantum-plain64"},
	} {
		t.Run(c.kind+c.cipher, func(t *testing.T) {
			f := wire.Format{Cipher: c.cipher, SectorSize: 4096}
			if c.cipher != "" {
				f.KeySize = 32
			}
			device := b.volume(t, f)
			m := b.activate(t, device, mapping.Options{Name: "data"})
			if m.Existing {
				t.Error("a fresh mapping counts as existing")
			}
			b.run(t, c.mkfs, m.Path)
			content := bytes.Repeat([]byte("kept "), 100_000)
			mnt := wire.Mount{Source: m.Path, Target: "/mnt/data", Type: c.kind}
			b.do(t, "mount", mnt, nil)
			b.do(t, "write", wire.File{Path: "/mnt/data/file", Content: content}, nil)
			b.do(t, "unmount", mnt, nil)
			b.close(t, "data")
			b.activate(t, device, mapping.Options{Name: "data", ReadOnly: true})
			b.refuse(t, "", "permission denied", "mount", mnt)
			b.close(t, "data")

			b.activate(t, device, mapping.Options{Name: "data"})
			b.do(t, "mount", mnt, nil)
			var got wire.File
			b.do(t, "read", wire.File{Path: "/mnt/data/file"}, &got)
			if !bytes.Equal(got.Content, content) {
				t.Errorf("the file has %d bytes after the reopen, and not the %d that were written", len(got.Content), len(content))
			}
			b.do(t, "unmount", mnt, nil)
			b.close(t, "data")
		})
	}
}

// key looks for the volume key where it must not be.
func (b *bench) key(t *testing.T) {
	device := b.volume(t, wire.Format{})
	m := b.activate(t, device, mapping.Options{Name: "keyed"})
	absent := func(when string) {
		t.Helper()
		if keys := b.keys(t); keys != "" {
			t.Errorf("%s the kernel shows\n%s", when, keys)
		}
		var found []string
		b.do(t, "search", wire.Key{Type: "logon", Description: m.Table.Key}, &found)
		if len(found) > 0 {
			t.Errorf("%s the key can be used from the keyrings %q", when, found)
		}
	}
	absent("while the mapping is open,")
	want := fmt.Sprintf(":64:logon:%s", m.Table.Key)
	if table := b.run(t, "dmsetup", "table", "--showkeys", "keyed"); !bytes.Contains([]byte(table), []byte(want)) {
		t.Errorf("the table shows another key than %s: %s", want, table)
	}
	b.close(t, "keyed")
	absent("after the close,")
}
