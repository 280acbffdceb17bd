package volume_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/volume"
	"github.com/cryptctl/cryptctl/volume/volumetest"
)

// noise is bytes that look like nothing.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8(sha256.Sum256([]byte("noise"))).Read(b)
	return b
}

// put puts bytes at a place.
func put(at int64, b string) func(*testing.T, *volumetest.System, string) {
	return func(t *testing.T, _ *volumetest.System, device string) { write(t, device, at, []byte(b)) }
}

func mkfs(filesystem string) func(*testing.T, *volumetest.System, string) {
	return func(t *testing.T, s *volumetest.System, device string) {
		made := volumetest.New(t, t.TempDir())
		from := made.AddPartition("from", 320*mib)
		if err := made.Mkfs(t.Context(), from, filesystem); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(from)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 16<<10)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		write(t, device, 0, b)
	}
}

// TestRefused: what is neither the volume nor proven empty is named and left as it
// is, byte for byte.
func TestRefused(t *testing.T) {
	t.Parallel()
	anything, swap, raw := plain(volume.Auto), plain(volume.Swap), plain(volume.None)
	tests := []struct {
		name   string
		put    func(*testing.T, *volumetest.System, string)
		specs  []volume.Spec
		reason error // of the first spec; that of the others is ErrContent
	}{
		{"ext4", mkfs(volume.Ext4), []volume.Spec{encrypted("one"), swap, plain(volume.XFS)}, volume.ErrContent},
		{"xfs", mkfs(volume.XFS), []volume.Spec{encrypted("one"), swap, plain(volume.Ext4)}, volume.ErrContent},
		{"swap", mkfs(volume.Swap), []volume.Spec{encrypted("one"), anything, plain(volume.XFS)}, volume.ErrContent},
		{"NTFS", put(3, "NTFS    "), []volume.Spec{encrypted("one"), swap, anything}, volume.ErrContent},
		{"LUKS1", put(0, "LUKS\xba\xbe\x00\x01"), []volume.Spec{encrypted("one"), swap, anything, raw}, luks.LUKS1},
		{"LUKS of version 3", put(0, "LUKS\xba\xbe\x00\x03"), []volume.Spec{encrypted("one"), swap, anything, raw}, nil},
		{"LUKS and ext4", func(t *testing.T, s *volumetest.System, device string) {
			mkfs(volume.Ext4)(t, s, device)
			write(t, device, 0, []byte("LUKS\xba\xbe\x00\x01"))
		}, []volume.Spec{encrypted("one"), swap, anything, raw}, luks.LUKS1},
		{"xfs and ext4", func(t *testing.T, s *volumetest.System, device string) {
			mkfs(volume.Ext4)(t, s, device)
			write(t, device, 0, []byte("XFSB"))
		}, []volume.Spec{encrypted("one"), swap, anything, plain(volume.XFS)}, volume.ErrContent},
		{"random data", put(0, string(noise(mib))), []volume.Spec{encrypted("one"), swap, anything}, volume.ErrContent},
		{"one byte at the end", put(size-1, "\x01"), []volume.Spec{encrypted("one"), swap, anything}, volume.ErrContent},
		{"one byte in the middle", put(9*mib+17, "\x01"), []volume.Spec{encrypted("one"), swap, anything}, volume.ErrContent},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, device := machine(t)
			test.put(t, s, device)
			reason := test.reason
			for _, spec := range test.specs {
				for _, may := range []bool{true, false} { // what is there counts, not what may be done
					spec.MayFormat = may
					refused(t, s, device, spec, reason)
				}
				reason = volume.ErrContent
			}
		})
	}
}

// TestRefusedLUKS: a LUKS2 volume is nothing but itself, whole or damaged.
func TestRefusedLUKS(t *testing.T) {
	t.Parallel()
	const secondary = luks.DefaultMetadataSize
	damage := func(at int64) func(*testing.T, string) {
		return func(t *testing.T, device string) { write(t, device, at, []byte("damaged")) }
	}
	zero := func(n int) func(*testing.T, string) {
		return func(t *testing.T, device string) { write(t, device, 0, make([]byte, n)) }
	}
	over := func(at int64, b string) func(*testing.T, string) {
		return func(t *testing.T, device string) {
			zero(4096)(t, device)
			write(t, device, at, []byte(b))
		}
	}
	both := func(a, b func(*testing.T, string)) func(*testing.T, string) {
		return func(t *testing.T, device string) { a(t, device); b(t, device) }
	}
	tests := []struct {
		name   string
		damage func(*testing.T, string)
		opens  bool // as an encrypted volume
		plain  []volume.Spec
		reason error
	}{
		{"whole", func(*testing.T, string) {}, true, []volume.Spec{plain(volume.Auto), plain(volume.Swap), plain(volume.None)}, nil},
		{"primary damaged", damage(4096), true, []volume.Spec{plain(volume.Auto), plain(volume.Swap), plain(volume.None)}, nil},
		{"both copies damaged", both(damage(4096), damage(secondary+4096)), false, []volume.Spec{plain(volume.Auto), plain(volume.None)}, nil},
		{"primary gone", zero(secondary), true, []volume.Spec{plain(volume.Auto), plain(volume.None)}, nil},
		{"primary gone, secondary damaged", both(zero(secondary), damage(secondary+4096)), false, []volume.Spec{plain(volume.Auto), plain(volume.None)}, nil},
		{"both gone", zero(2 * secondary), false, []volume.Spec{plain(volume.Auto)}, volume.ErrContent},
		{"ext4 over the primary", over(0x438, "\x53\xef"), false, []volume.Spec{plain(volume.XFS), plain(volume.None)}, volume.ErrContent},
		{"xfs over the primary", over(0, "XFSB"), false, []volume.Spec{plain(volume.Ext4), plain(volume.None)}, volume.ErrContent},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, device := machine(t)
			made(t, s, device, encrypted("one"))
			s = s.Reboot()
			test.damage(t, device)
			for _, spec := range test.plain {
				refused(t, s, device, spec, volume.ErrContent)
			}
			if !test.opens {
				refused(t, s, device, encrypted("one"), test.reason)
				return
			}
			shut(t, open(t, s, device, encrypted("one")))
		})
	}
}

// TestEmpty: a partition that is empty is not formatted without leave, and not at
// all when a volume was recorded on it.
func TestEmpty(t *testing.T) {
	t.Parallel()
	known := &volume.Identity{UUID: uuid, Key: "00"}
	for name, spec := range map[string]volume.Spec{"encrypted": encrypted("one"), "plain": plain(volume.Auto), "swap": plain(volume.Swap)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, device := machine(t)
			spec.MayFormat = false
			refused(t, s, device, spec, volume.ErrEmpty)
			spec.Known = known
			refused(t, s, device, spec, volume.ErrStranger)
			spec.MayFormat = true
			refused(t, s, device, spec, volume.ErrStranger)
		})
	}
}

// TestFormatFails: when a key cannot be made, or no mapping, nothing is written
// that cannot be gone on with.
func TestFormatFails(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	spec := encrypted("one")
	spec.Encryption.Cipher = "rot13"
	refused(t, s, device, spec, nil)
	spec = encrypted("one")
	spec.Encryption.Keys = nil
	refused(t, s, device, spec, nil)

	failed := errors.New("no such module")
	s.FailAt("Activate", 1, failed)
	if _, err := tryOpen(t, s, device, encrypted("one")); !errors.Is(err, failed) {
		t.Errorf("error %v", err)
	}
	s.FailAt("Mkfs", 1, failed)
	if _, err := tryOpen(t, s, device, encrypted("one")); !errors.Is(err, failed) {
		t.Errorf("error %v", err)
	}
	wantCalls(t, s, nil, "Activate luks2-STATE STATE", "Activate luks2-STATE STATE", "Mkfs luks2-STATE ext4", "Deactivate luks2-STATE")
	v := open(t, s, device, encrypted("one"))
	mount(t, v, t.TempDir()+"/mnt")
	shut(t, v)
}

// TestNoFilesystem: a volume that unlocks, was not made here and holds nothing
// that is known is left alone, and its mapping closed.
func TestNoFilesystem(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		at      int64
		content string
	}{
		{"noise", 0, ""},
		{"NTFS", 3, "NTFS    "},
		{"a LUKS1 volume", 0, "LUKS\xba\xbe\x00\x01"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, device := machine(t)
			luksImage(t, device, luks.FormatOptions{}, "one")
			v := open(t, s, device, with(encrypted("one"), volume.None))
			write(t, v.Path, test.at, []byte(test.content))
			shut(t, v)
			s = s.Reboot()
			refused(t, s, device, encrypted("one"), volume.ErrContent)
			refused(t, s, device, with(encrypted("one"), volume.XFS), volume.ErrContent)
			shut(t, open(t, s, device, with(encrypted("one"), volume.None)))
		})
	}
}

// TestForgedMark: a mark that was not made with the volume key brings no file
// system about.
func TestForgedMark(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	other := s.AddPartition("other", size)
	s.CutBefore("Mkfs", 1)
	if _, err := tryOpen(t, s, other, encrypted("one")); !errors.Is(err, volumetest.ErrPowerCut) {
		t.Fatalf("error %v", err)
	}
	s = s.Reboot()
	mark, there := header(t, other).Config("cryptctl.fresh")
	if !there || !bytes.HasPrefix(mark, []byte("{")) {
		t.Fatalf("the mark of a new volume is %s", mark)
	}
	id := made(t, s, device, encrypted("one"))
	f, err := luks.OpenFile(device, luks.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := luks.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Commit(luks.SetConfig("cryptctl.fresh", mark)); err != nil {
		t.Fatal(err)
	}
	s = s.Reboot()
	if again := made(t, s, device, encrypted("one")); again != id {
		t.Errorf("another volume: %+v and %+v", id, again)
	}
	wantCalls(t, s, []string{"Mkfs"})
}
