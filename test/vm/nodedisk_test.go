//go:build vm

package vm_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/cryptctl/cryptctl/disk"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/meta"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/test/vm/machine"
)

// nodeDisk is the disk of a node, as the host sees it.
type nodeDisk struct {
	*machine.Disk
	table *disk.Table
}

// newNodeDisk makes a disk with META, STATE, EPHEMERAL and user volumes, all
// blank. A LUKS header takes 16 MiB of each.
func newNodeDisk(t *testing.T, users ...string) *nodeDisk {
	t.Helper()
	specs := []disk.Spec{{Label: "META", Size: meta.Size}, {Label: "STATE", Size: 24 << 20}, {Label: "EPHEMERAL", Size: 32 << 20}}
	for _, name := range users {
		specs = append(specs, disk.Spec{Label: "u-" + name, Size: 24 << 20})
	}
	size := int64(2 << 20)
	for _, s := range specs {
		size += s.Size
	}
	path := filepath.Join(t.TempDir(), "disk")
	table, err := disk.Create(path, size, specs)
	if err != nil {
		t.Fatal(err)
	}
	return &nodeDisk{&machine.Disk{Path: path}, table}
}

// copy returns a copy of the disk.
func (d *nodeDisk) copy(t *testing.T) *nodeDisk {
	t.Helper()
	content, err := os.ReadFile(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return &nodeDisk{&machine.Disk{Path: path}, d.table}
}

func (d *nodeDisk) part(t *testing.T, label string) disk.Partition {
	t.Helper()
	p, err := d.table.Find(label)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// labelOf says what an operation was done to.
func (d *nodeDisk) labelOf(op machine.Op) string {
	for _, p := range d.table.Partitions {
		if !op.Flush && op.Offset >= p.Offset && op.Offset < p.Offset+p.Size {
			return p.Label
		}
	}
	return "flush"
}

// with opens a partition while no machine has it.
func (d *nodeDisk) with(t *testing.T, label string, use func(luks.Device) error) {
	t.Helper()
	p := d.part(t, label)
	f, err := luks.OpenFile(d.Path, luks.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	section, err := luks.Section(f, p.Offset, p.Size)
	if err == nil {
		err = use(section)
	}
	if err != nil {
		t.Fatalf("%s of %s: %v", label, d.Path, err)
	}
}

// tag returns a value of META.
func (d *nodeDisk) tag(t *testing.T, tag meta.Tag) (value string) {
	t.Helper()
	d.with(t, "META", func(dev luks.Device) error {
		m, err := meta.Read(dev)
		if err != nil {
			return err
		}
		v, _ := m.Get(tag)
		value = string(v)
		return nil
	})
	return value
}

// setTags changes META behind the node's back; an empty value deletes.
func (d *nodeDisk) setTags(t *testing.T, values map[meta.Tag]string) {
	t.Helper()
	d.with(t, "META", func(dev luks.Device) error {
		m, err := meta.Read(dev)
		if err != nil {
			return err
		}
		for tag, value := range values {
			if value == "" {
				m.Delete(tag)
				continue
			}
			if err := m.Set(tag, []byte(value)); err != nil {
				return err
			}
		}
		return m.Commit()
	})
}

// openWith fails unless a volume has exactly these keys, each in its slot, and
// none of the former ones opens it.
func (d *nodeDisk) openWith(t *testing.T, label string, want keySet, former ...string) {
	t.Helper()
	d.with(t, label, func(dev luks.Device) error {
		h, err := luks.Read(dev)
		if err != nil {
			return err
		}
		if len(h.Keyslots()) != len(want) {
			t.Errorf("%s has %d slots, and %d keys are configured", label, len(h.Keyslots()), len(want))
		}
		for slot, word := range want {
			if word == byNodeID {
				word = nodeUUID + label
			}
			if got, err := slotOf(h, word); err != nil || got != slot {
				t.Errorf("%s: the key of slot %d opens slot %d (%v)", label, slot, got, err)
			}
		}
		for i, word := range former {
			if _, err := slotOf(h, word); !errors.Is(err, luks.ErrWrongPassphrase) {
				t.Errorf("%s: former key %d is not refused: %v", label, i, err)
			}
		}
		return nil
	})
}

// slotOf returns the slot that a passphrase opens.
func slotOf(h *luks.Header, word string) (int, error) {
	pass := secret.Copy([]byte(word))
	defer pass.Wipe()
	key, err := h.Unlock(context.Background(), pass, luks.UnlockOptions{})
	if err != nil {
		return -1, err
	}
	defer key.Wipe()
	return key.Slot(), nil
}

// sum is a hash of the disk, or of partitions of it.
func (d *nodeDisk) sum(t *testing.T, labels ...string) string {
	t.Helper()
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var parts []io.Reader
	for _, label := range labels {
		p := d.part(t, label)
		parts = append(parts, io.NewSectionReader(f, p.Offset, p.Size))
	}
	if labels == nil {
		parts = []io.Reader{f}
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.MultiReader(parts...)); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
