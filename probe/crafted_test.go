package probe_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/siderolabs/go-blockdevice/v2/partitioning/gpt"

	"github.com/cryptctl/cryptctl/probe"
)

// TestCrafted probes images whose tools need devices or do not exist here. They
// are made by hand, as far as it takes for libblkid to know them.
func TestCrafted(t *testing.T) {
	const size = 64 * mib
	tests := []struct {
		name   string
		pieces []piece
		want   []at
		judge  string // the type that libblkid must see; "" where it knows none
	}{
		{"lvm", []piece{{512, lvmLabel(1)}}, []at{{"lvm", 512}, {"lvm", 0x218}}, "LVM2_member"},
		{"lvm, fourth sector", []piece{{1536, lvmLabel(3)}}, []at{{"lvm", 1536}, {"lvm", 0x618}}, "LVM2_member"},
		{"md 0.90", []piece{{size - 64<<10, "\xfc\x4e\x2b\xa9" + "\x00\x00\x00\x00" + "\x5a\x00\x00\x00"}}, []at{{"md", size - 64<<10}}, "linux_raid_member"},
		{"md 1.0", []piece{{size - 8192, mdSuper(size - 8192)}}, []at{{"md", size - 8192}}, "linux_raid_member"},
		{"md 1.1", []piece{{0, mdSuper(0)}}, []at{{"md", 0}}, "linux_raid_member"},
		{"md 1.2", []piece{{4096, mdSuper(4096)}}, []at{{"md", 4096}}, "linux_raid_member"},
		{"zfs", zfsLabels(0, 256<<10, size-512<<10, size-256<<10), []at{{"zfs", 128 << 10}, {"zfs", 384 << 10}, {"zfs", size - 384<<10}, {"zfs", size - 128<<10}}, "zfs_member"},
		{"zfs, start wiped", zfsLabels(size-512<<10, size-256<<10), []at{{"zfs", size - 384<<10}, {"zfs", size - 128<<10}}, "zfs_member"},
		{"zfs, one big-endian uberblock", []piece{{255 << 10, "\x00\x00\x00\x00\x00\xba\xb1\x0c"}}, []at{{"zfs", 255 << 10}}, ""},
		{"bitlocker", []piece{{0, "\xeb\x58\x90-FVE-FS-"}, {176, "\x00\x10"}, {4096, "-FVE-FS-"}}, []at{{"bitlocker", 3}}, "BitLocker"},
		{"bluestore", []piece{{0, "bluestore block device\n"}}, []at{{"bluestore", 0}}, "ceph_bluestore"},
		{"vdo", []piece{{0, "dmvdo001"}}, []at{{"vdo", 0}}, "vdo"},
		{"drbd 9", []piece{{size - 4096 + 60, "\x83\x74\x02\x6d"}}, []at{{"drbd", size - 4096 + 60}}, "drbd"},
		{"reiserfs", []piece{{64<<10 + 44, "\x00\x10"}, {64<<10 + 12, "\x12\x00"}, {64<<10 + 0x34, "ReIsEr2Fs"}}, []at{{"reiserfs", 64<<10 + 0x34}}, "reiserfs"},
		{"hibernation", []piece{{0xff6, "S1SUSPEND"}}, []at{{"hibernation", 0xff6}}, "swsuspend"},
		{"udf", []piece{{0x8001, "BEA01\x01"}, {0x8801, "NSR03\x01"}, {0x9001, "TEA01\x01"}}, []at{{"udf", 0x8001}, {"udf", 0x8801}}, ""},
		{"hfsplus", []piece{{0x400, "H+\x00\x04"}, {0x428, "\x00\x00\x10\x00"}, {size - 1024, "H+\x00\x04"}}, []at{{"hfsplus", 0x400}, {"hfsplus", size - 1024}}, "hfsplus"},
		{"stratis", []piece{{0x1204, "!Stra0tis\x86\xff\x02^\x41rh"}}, []at{{"stratis", 0x1204}}, ""},
		{"erofs", []piece{{0x400, "\xe2\xe1\xf5\xe0"}}, []at{{"erofs", 0x400}}, ""},
		{"talos META", metaStore(0, 256<<10), []at{{"talos-meta", 0}, {"talos-meta", 256<<10 - 4}, {"talos-meta", 256 << 10}, {"talos-meta", 512<<10 - 4}}, ""},
		{"talos META, first copy wiped", metaStore(256 << 10), []at{{"talos-meta", 256 << 10}, {"talos-meta", 512<<10 - 4}}, ""},
		{"boot sector alone", []piece{{510, "\x55\xaa"}}, []at{{"boot-sector", 510}}, ""},
		{"mbr with an entry of garbage", []piece{{446, strings.Repeat("\x55", 16)}, {510, "\x55\xaa"}}, []at{{"boot-sector", 510}}, ""},
		{"luks of another version", []piece{{0, "LUKS\xba\xbe\x00\x03"}}, []at{{"luks", 0}}, ""},
		{"random data", []piece{{7, "no format at all"}}, []at{{"data", 7}}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			img := image(t, filepath.Join(t.TempDir(), "image"), size, test.pieces...)
			r := mustProbe(t, file(t, img))
			found := places(r.Findings)
			if diff := cmp.Diff(test.want, found); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			ownFindings(t, r.Findings)
			if types := judge(t, img, found); test.judge != "" && !slices.Contains(types, test.judge) {
				t.Errorf("libblkid sees %v, not %s: the image is not what it should be", types, test.judge)
			}
		})
	}
}

// TestGPTOf4096 probes a table for 4096-byte sectors, with and without its
// primary header, and the protective MBR alone.
func TestGPTOf4096(t *testing.T) {
	const size = 16 * mib
	path := image(t, filepath.Join(t.TempDir(), "image"), size)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dev, err := gpt.DeviceFromFile(f, gpt.WithFileSectorSize(4096))
	if err != nil {
		t.Fatal(err)
	}
	table, err := gpt.New(dev)
	if err != nil {
		t.Fatal(err)
	}
	// Smaller than blkid of go-blockdevice can bear: its probe fails on it.
	if _, _, err := table.AllocatePartition(8192, "SMALL", [16]byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(); err != nil {
		t.Fatal(err)
	}
	want := []at{{"mbr", 510}, {"gpt", 4096}, {"gpt-backup", size - 4096}}
	if diff := cmp.Diff(want, places(mustProbe(t, file(t, path)).Findings)); diff != "" {
		t.Errorf("whole (-want +got):\n%s", diff)
	}
	zero(t, path, mib)
	if diff := cmp.Diff(want[2:], places(mustProbe(t, file(t, path)).Findings)); diff != "" {
		t.Errorf("start wiped (-want +got):\n%s", diff)
	}
}

// TestPartition probes a partition within an image that is full elsewhere.
func TestPartition(t *testing.T) {
	const from, size = 3*mib + 512, 20 * mib
	full := strings.Repeat("x", from)
	path := filepath.Join(t.TempDir(), "image")
	whole := file(t, image(t, path, 2*from+size, piece{0, full}, piece{from + size, full}))
	if r := mustProbe(t, io.NewSectionReader(whole, from, size)); !r.Empty() {
		t.Errorf("zeros: %v", r.Findings)
	}
	whole = file(t, image(t, path, 2*from+size, piece{0, full}, piece{from + size, full}, piece{from + 0x4000, "SKUL\xba\xbe"}))
	r := mustProbe(t, io.NewSectionReader(whole, from, size))
	if diff := cmp.Diff([]at{{"luks2-secondary", 0x4000}}, places(r.Findings)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

// TestOddSize: places at the end are counted from where the format counts.
func TestOddSize(t *testing.T) {
	const size = 64*mib + 200<<10 + 3000
	tests := []struct {
		name  string
		piece piece
		want  at
	}{
		{"zfs", piece{64*mib - 128<<10, le64(0x00bab10c)}, at{"zfs", 64*mib - 128<<10}},
		{"md 1.0", piece{64*mib + 192<<10, "\xfc\x4e\x2b\xa9"}, at{"md", 64*mib + 192<<10}},
		{"md 0.90", piece{64*mib + 128<<10, "\xfc\x4e\x2b\xa9"}, at{"md", 64*mib + 128<<10}},
		{"gpt", piece{size - 3000 + 2048, "EFI PART"}, at{"gpt-backup", size - 3000 + 2048}},
	}
	for _, test := range tests {
		r := mustProbe(t, &sparse{size: size, pieces: []piece{test.piece}})
		if diff := cmp.Diff([]at{test.want}, places(r.Findings)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
		ownFindings(t, r.Findings)
	}
}

// TestTable plants every signature in areas that are zero elsewhere.
func TestTable(t *testing.T) {
	t.Parallel()
	rows := probe.Rows()
	if len(rows) < 150 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	for _, row := range rows {
		for _, size := range []int64{300<<30 + 512*7 + 3, 5 * mib} {
			at := row.Offset(size)
			if at+int64(len(row.Magic)) > size {
				continue // the copies of Btrfs and ext on a small area
			}
			a := &sparse{size: size, pieces: []piece{{at, row.Magic}}}
			r := mustProbe(t, a)
			if r.Empty() {
				t.Errorf("%s at %d of %d: taken for empty", row.Kind, at, size)
			}
			found, err := probe.Signatures(a)
			if err != nil {
				t.Error(err)
			}
			for _, list := range [][]probe.Finding{r.Findings, found} {
				if !slices.ContainsFunc(list, func(f probe.Finding) bool { return f.Kind == row.Kind && f.Offset == at }) {
					t.Errorf("%s at %d of %d: findings are %v", row.Kind, at, size, list)
				}
			}
		}
	}
}

func le32(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }
func le64(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }

// lvmLabel is a label with the checksum of lib/misc/crc.c of LVM2: CRC-32 with
// another start and without the last inversion.
func lvmLabel(sector uint64) string {
	rest := make([]byte, 512-20)
	copy(rest, le32(32)+"LVM2 001"+strings.Repeat("u", 32))
	crc := ^crc32.Update(^uint32(0xf597a6cf), crc32.IEEETable, rest)
	return "LABELONE" + le64(sector) + le32(crc) + string(rest)
}

func mdSuper(at uint64) string {
	b := make([]byte, 256)
	copy(b, "\xfc\x4e\x2b\xa9\x01")
	copy(b[16:], "sixteen-byte-id.")
	copy(b[144:], le64(at/512))
	return string(b)
}

// zfsLabels gives every label the four uberblocks that libblkid asks for.
func zfsLabels(labels ...int64) []piece {
	var pieces []piece
	for _, label := range labels {
		for i := range int64(4) {
			pieces = append(pieces, piece{label + 128<<10 + i<<10, le64(0x00bab10c) + le64(5000)})
		}
	}
	return pieces
}

func metaStore(copies ...int64) []piece {
	b := make([]byte, 256<<10)
	copy(b, "\x5a\x4b\x3c\x2d\x00\x00\x00\x09\x00\x00\x00\x04null")
	sum := sha256.Sum256(append(bytes.Clone(b[:len(b)-4]), 0xa5, 0xb4, 0xc3, 0xd2))
	copy(b[len(b)-36:], sum[:])
	copy(b[len(b)-4:], "\xa5\xb4\xc3\xd2")
	var pieces []piece
	for _, at := range copies {
		pieces = append(pieces, piece{at, string(b)})
	}
	return pieces
}
