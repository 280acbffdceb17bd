package luks_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/luks"
)

func TestBackup(t *testing.T) {
	d, h := newVolume(t)
	d.data[dataOffset-1] = 0xff // a leftover of an interrupted change
	b := deviceOf(t, h)
	if got := len(b.data) - 64<<10; got != dataOffset {
		t.Errorf("the backup has %d bytes, want %d", got, dataOffset)
	}
	back := sound(t, b)
	if diff := cmp.Diff(string(h.JSON()), string(back.JSON())); diff != "" {
		t.Errorf("the backup's document (-header +backup):\n%s", diff)
	}
	if back.UUID() != h.UUID() || back.Label() != h.Label() || back.SeqID() != h.SeqID() || back.Subsystem() != h.Subsystem() {
		t.Errorf("the backup says %s %q %d", back.UUID(), back.Label(), back.SeqID())
	}
	if got := opens(t, back, "zero", "one"); got != "zero:0 one:1" {
		t.Errorf("the backup opens %q", got)
	}
}

// TestBackupOfDamage: a backup of a header with one good copy has two.
func TestBackupOfDamage(t *testing.T) {
	d, _ := newVolume(t)
	d.data[atJSON] ^= 1
	sound(t, deviceOf(t, mustRead(t, d)))
}

// TestBackupIsOfNow: what is backed up is what is on the disk, not what was read
// long ago.
func TestBackupIsOfNow(t *testing.T) {
	_, h := newVolume(t)
	now := commit(t, h, luks.RemoveKeyslot(1))
	if diff := cmp.Diff(string(now.JSON()), string(sound(t, deviceOf(t, h)).JSON())); diff != "" {
		t.Errorf("the backup's document (-disk +backup):\n%s", diff)
	}
}

func TestBackupFile(t *testing.T) {
	_, h := newVolume(t)
	path := filepath.Join(t.TempDir(), "header.img")
	if err := h.BackupFile(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o400 || info.Size() != dataOffset {
		t.Errorf("mode %v, %d bytes, %v", info.Mode(), info.Size(), err)
	}
	if got := opens(t, sound(t, openFile(t, path, luks.ReadOnly)), "zero", "one"); got != "zero:0 one:1" {
		t.Errorf("opens %q", got)
	}

	was, _ := os.ReadFile(path)
	if err := h.BackupFile(path); err == nil || !strings.Contains(err.Error(), "exists already and is left as it is; name a new file") {
		t.Errorf("over a file: %v", err)
	}
	if is, _ := os.ReadFile(path); !bytes.Equal(is, was) {
		t.Error("the file was overwritten")
	}
	if err := h.BackupFile(filepath.Join(t.TempDir(), "no", "such", "place")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in a directory that is not there: %v", err)
	}
}

// TestBackupFails leaves no half of a file behind.
func TestBackupFails(t *testing.T) {
	d, h := newVolume(t)
	path := filepath.Join(t.TempDir(), "header.img")
	for _, at := range []int64{0, metadataSize, 2 * metadataSize, 2*metadataSize + areaBytes} {
		d.before = func(op operation) error {
			if op.offset == at {
				return errBroken
			}
			return nil
		}
		if err := h.BackupFile(path); !errors.Is(err, errBroken) || !strings.HasPrefix(err.Error(), path+": ") {
			t.Errorf("read fails at %d: %v", at, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("read fails at %d: the file is there", at)
		}
	}
	d.before = nil
	if err := h.Backup(brokenWriter{}); !errors.Is(err, errBroken) {
		t.Errorf("write fails: %v", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }
