package probe_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/probe"
)

// TestSecondVoice asks go-blockdevice alone: it must be heard, under our names,
// and must know nothing that the table does not.
func TestSecondVoice(t *testing.T) {
	const size = 64 * mib
	tests := []struct {
		name   string
		pieces []piece
		want   []at
	}{
		{"zeros", nil, nil},
		{"luks1", []piece{{0, "LUKS\xba\xbe\x00\x01"}}, nil},
		{"ntfs", []piece{{3, "NTFS    "}}, nil},
		{"luks2", []piece{{0, "LUKS\xba\xbe\x00\x02"}}, []at{{"luks2", 0}}},
		{"lvm", []piece{{512, lvmLabel(1)}}, []at{{"lvm", 0x218}}},
		{"md at the end", []piece{{size - 8192, mdSuper(size - 8192)}}, []at{{"md", size - 8192}}},
		{"zfs at the end", zfsLabels(size - 256<<10), []at{{"zfs", 128 << 10}}},
		{"talos META", metaStore(0, 256<<10), []at{{"talos-meta", 0}}},
		{"bluestore", []piece{{0, "bluestore block device"}}, []at{{"bluestore", 0}}},
		{"btrfs", []piece{{0x10040, "_BHRfS_M"}}, []at{{"btrfs", 0x10040}}},
	}
	same := cmp.Transformer("place", func(list []at) []at {
		if len(list) == 2 && list[0] == list[1] { // asked once per sector size
			return list[:1]
		}
		return list
	})
	for _, test := range tests {
		found, err := probe.SecondVoice(&sparse{size: size, pieces: test.pieces})
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if diff := cmp.Diff(test.want, places(found), cmp.FilterPath(func(p cmp.Path) bool { return len(p) == 1 }, same)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
	for _, f := range fixtures() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			area := file(t, f.make(t))
			found, err := probe.SecondVoice(area)
			if err != nil {
				t.Error(err)
			}
			if f.wipe == 0 && len(found) == 0 && spoken(f.first.Kind) {
				t.Errorf("go-blockdevice sees nothing, though it should know %s", f.first.Kind)
			}
			ownFindings(t, mustProbe(t, area).Findings)
		})
	}
}

// spoken says which formats of the fixtures go-blockdevice knows.
func spoken(kind string) bool {
	switch kind {
	case "ext", "xfs", "btrfs", "fat", "iso9660", "gpt", "luks2", "swap": // SquashFS too, but our image is below 16 KiB
		return true
	}
	return false
}

// TestSecondVoiceFails: go-blockdevice fails on a GPT with a partition of less
// than 16 KiB. Where our own search found something, that is no error.
func TestSecondVoiceFails(t *testing.T) {
	path := image(t, filepath.Join(t.TempDir(), "image"), 16*mib)
	run(t, "sgdisk", "--new=1:2048:2055", path)
	area := file(t, path)
	if found, err := probe.SecondVoice(area); err == nil {
		t.Errorf("it has learned it: %v; drop this test", found)
	}
	if r := mustProbe(t, area); r.Empty() || !strings.Contains(r.Findings[0].Detail, "GPT") {
		t.Errorf("findings %v", r.Findings)
	}
}
