package interop_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// spoil overwrites the beginning of the image: both header copies and some key
// material.
func (d *disk) spoil() {
	d.Helper()
	if _, err := d.open().WriteAt(bytes.Repeat([]byte{0xA5}, 1<<20), 0); err != nil {
		d.Fatal(err)
	}
	if r := try(d, "isLuks", d.path); r.code == 0 {
		d.Fatal("the header survived being overwritten")
	}
}

// readBackup reads a backup file with our engine.
func readBackup(t *testing.T, path string) *luks.Header {
	t.Helper()
	f, err := luks.OpenFile(path, luks.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	h, err := luks.Read(f)
	if err != nil {
		t.Fatalf("we cannot read the backup: %v", err)
	}
	return h
}

// makers are the two sources of volumes.
func makers() map[string]func(t *testing.T) *disk {
	return map[string]func(t *testing.T) *disk{
		"cryptsetup's volume": func(t *testing.T) *disk { return theirs(t, shape{kdf.Argon2id, 512, 512, 16 << 10}, "alpha") },
		"our volume":          func(t *testing.T) *disk { return ours(t, plain(), "alpha") },
	}
}

func TestBackup(t *testing.T) {
	for maker, volume := range makers() {
		t.Run("ours restored by cryptsetup/"+maker, func(t *testing.T) {
			d := volume(t)
			d.addHere(1, "bravo")
			d.addThere(2, "charlie")
			d.removeHere(1)
			backup := filepath.Join(t.TempDir(), "backup")
			if err := d.header().BackupFile(backup); err != nil {
				t.Fatal(err)
			}
			d.spoil()
			cryptsetup(t, "luksHeaderRestore", "--header-backup-file", backup, d.path)
			d.accepted("restored")
			d.opens("restored")
			d.sameKey("restored", 0)
		})
		t.Run("theirs restored here/"+maker, func(t *testing.T) {
			d := volume(t)
			d.addHere(1, "bravo")
			backup := filepath.Join(t.TempDir(), "backup")
			cryptsetup(t, "luksHeaderBackup", "--header-backup-file", backup, d.path)
			d.spoil()
			plan, err := luks.PlanRestore(d.open(), readBackup(t, backup))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := plan.Run(false); !errors.Is(err, luks.ErrNeedsForce) {
				t.Fatalf("over a device without a header: %v, want %v", err, luks.ErrNeedsForce)
			}
			if _, err := plan.Run(true); err != nil {
				t.Fatal(err)
			}
			d.accepted("restored")
			d.opens("restored")
			d.sameKey("restored", 1)
		})
		t.Run("theirs restored here over changed keys/"+maker, func(t *testing.T) {
			d := volume(t)
			d.addThere(1, "bravo")
			backup := filepath.Join(t.TempDir(), "backup")
			cryptsetup(t, "luksHeaderBackup", "--header-backup-file", backup, d.path)
			d.changeThere(1, "changed", true)
			d.addThere(2, "since")
			plan, err := luks.PlanRestore(d.open(), readBackup(t, backup))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(plan.Revived, []int{1}) || !slices.Equal(plan.Lost, []int{1, 2}) || len(plan.Concerns) > 0 {
				t.Errorf("revived %v, lost %v, concerns %q", plan.Revived, plan.Lost, plan.Concerns)
			}
			seq := d.header().SeqID()
			after, err := plan.Run(false)
			if err != nil {
				t.Fatal(err)
			}
			if after.SeqID() <= seq {
				t.Errorf("the sequence number went from %d to %d", seq, after.SeqID())
			}
			delete(d.keys, 2)
			d.keys[1] = "bravo"
			d.accepted("restored")
			d.opens("restored")
		})
	}
	t.Run("a backup of one tool is read by the other", func(t *testing.T) {
		d := ours(t, plain(), "alpha")
		d.addThere(1, "bravo")
		here, there := filepath.Join(t.TempDir(), "here"), filepath.Join(t.TempDir(), "there")
		if err := d.header().BackupFile(here); err != nil {
			t.Fatal(err)
		}
		cryptsetup(t, "luksHeaderBackup", "--header-backup-file", there, d.path)
		for _, path := range []string{here, there} {
			b := &disk{t, path, d.shape, d.keys, d.key}
			h := readBackup(t, path)
			if key, err := h.Unlock(context.Background(), secret.Copy([]byte("bravo")), luks.UnlockOptions{}); err != nil || !bytes.Equal(key.Bytes().Bytes(), d.key) {
				t.Errorf("%s: we cannot open it: %v", filepath.Base(path), err)
			}
			if !b.opensThere("bravo", 1, "--header", path) {
				t.Errorf("%s: cryptsetup cannot open it", filepath.Base(path))
			}
		}
		a, errA := os.Stat(here)
		b, errB := os.Stat(there)
		if errA != nil || errB != nil || a.Size() != b.Size() || a.Mode() != b.Mode() {
			t.Errorf("our backup: %v %v, theirs: %v %v", a, errA, b, errB)
		}
	})
}

func TestErase(t *testing.T) {
	gone := func(t *testing.T, d *disk, old *disk) {
		t.Helper()
		d.keys = map[int]string{}
		d.accepted("erased")
		if r := try(t, "open", "--test-passphrase", "--key-file", keyFile(t, "alpha"), d.path); r.code == 0 {
			t.Error("cryptsetup still opens it")
		}
		if _, err := d.unlock("alpha", -1); err == nil {
			t.Error("we still open it")
		}
		// The old header over the new one finds no key material either.
		if _, err := d.open().WriteAt(old.headerBytes(), 0); err != nil {
			t.Fatal(err)
		}
		if d.opensHere("alpha", -1) || d.opensThere("alpha", -1) {
			t.Error("the key material is still there")
		}
	}
	t.Run("by cryptsetup", func(t *testing.T) {
		d := ours(t, plain(), "alpha")
		d.addHere(1, "bravo")
		old := d.copy(t)
		cryptsetup(t, "erase", d.path)
		gone(t, d, old)
	})
	t.Run("by us", func(t *testing.T) {
		d := theirs(t, plain(), "alpha")
		d.addThere(1, "bravo")
		old := d.copy(t)
		if _, err := d.header().Erase(); err != nil {
			t.Fatal(err)
		}
		gone(t, d, old)
	})
}

// TestRepair: what one tool finds damaged, the other finds whole after a repair.
func TestRepair(t *testing.T) {
	for name, at := range map[string]int64{"primary": 200, "secondary": 64<<10 + 5000} {
		t.Run(name+" repaired by us", func(t *testing.T) {
			d := theirs(t, plain(), "alpha")
			if _, err := d.open().WriteAt([]byte{0xA5}, at); err != nil {
				t.Fatal(err)
			}
			if _, done, err := luks.Repair(d.open()); err != nil || len(done) == 0 {
				t.Fatalf("repair: %v, did %q", err, done)
			}
			d.accepted("repaired")
			d.opens("repaired")
		})
		t.Run(name+" repaired by cryptsetup", func(t *testing.T) {
			d := ours(t, plain(), "alpha")
			if _, err := d.open().WriteAt([]byte{0xA5}, at); err != nil {
				t.Fatal(err)
			}
			if !d.opensHere("alpha", 0) {
				t.Error("we do not open it by the copy that is left")
			}
			cryptsetup(t, "luksDump", d.path) // a read that writes
			d.accepted("repaired")
			d.opens("repaired")
		})
	}
}
