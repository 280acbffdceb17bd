package disk_test

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/siderolabs/go-blockdevice/v2/partitioning/gpt"

	"github.com/cryptctl/cryptctl/disk"
)

const efiSystem = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"

// TestReadsSgdisk reads what sgdisk wrote, entries out of order and with gaps,
// and compares with the reader of go-blockdevice.
func TestReadsSgdisk(t *testing.T) {
	path := blank(t, 64*mib)
	run(t, "gdisk", "sgdisk",
		"--new=3:2048:4095", "--change-name=3:META", "--partition-guid=3:11111111-2222-3333-4455-66778899AABB",
		"--new=1:20480:22527", "--change-name=1:EFI", "--typecode=1:EF00", "--partition-guid=1:R",
		"--new=7:4096:4103", "--change-name=7:tiny", // 4 KiB
		"--new=9:24576:0", "--change-name=9:größer 😀",
		path)
	got := mustRead(t, path)
	want := &disk.Table{SectorSize: 512, Size: 64 * mib, Partitions: []disk.Partition{
		{Number: 1, Label: "EFI", Type: efiSystem, Offset: 10 * mib, Size: mib},
		{Number: 3, Label: "META", Type: disk.LinuxFilesystem, UUID: "11111111-2222-3333-4455-66778899aabb", Offset: mib, Size: mib},
		{Number: 7, Label: "tiny", Type: disk.LinuxFilesystem, Offset: 2 * mib, Size: 4096},
		{Number: 9, Label: "größer 😀", Type: disk.LinuxFilesystem, Offset: 12 * mib, Size: 52*mib - 33*512},
	}}
	random := cmpopts.IgnoreFields(disk.Partition{}, "UUID")
	if diff := cmp.Diff(want, got, random); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	if got.Partitions[1].UUID != want.Partitions[1].UUID {
		t.Errorf("META has UUID %s", got.Partitions[1].UUID)
	}
	if diff := cmp.Diff(upstream(t, path, 512), got.Partitions); diff != "" {
		t.Errorf("go-blockdevice and we differ (-it +we):\n%s", diff)
	}
	for _, p := range got.Partitions {
		if found, err := got.Find(p.Label); err != nil || found != p {
			t.Errorf("Find(%q) = %v, %v", p.Label, found, err)
		}
	}
}

// upstream reads an image with go-blockdevice.
func upstream(t *testing.T, path string, sector int) []disk.Partition {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dev, err := gpt.DeviceFromFile(f, gpt.WithFileSectorSize(uint(sector)))
	if err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Read(dev)
	if err != nil {
		t.Fatal(err)
	}
	return ours(table, sector)
}

func ours(table *gpt.Table, sector int) []disk.Partition {
	var all []disk.Partition
	for i, p := range table.Partitions() {
		if p != nil {
			all = append(all, disk.Partition{
				Number: i + 1, Label: p.Name, Type: p.TypeGUID.String(), UUID: p.PartGUID.String(),
				Offset: int64(p.FirstLBA) * int64(sector), Size: int64(p.LastLBA-p.FirstLBA+1) * int64(sector),
			})
		}
	}
	return all
}

// TestSectorsOf4096 reads an image made for 4096-byte sectors.
func TestSectorsOf4096(t *testing.T) {
	path := blank(t, 16*mib)
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
	if _, _, err := table.AllocatePartition(3*mib, "STATE", [16]byte{0xc1}); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(); err != nil {
		t.Fatal(err)
	}
	got := mustRead(t, path)
	if got.SectorSize != 4096 || got.Damage != nil {
		t.Errorf("sectors of %d, damage %v", got.SectorSize, got.Damage)
	}
	if diff := cmp.Diff(ours(table, 4096), got.Partitions); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
}

func twoPartitions() []disk.Spec {
	return []disk.Spec{{Label: "META", Size: mib}, {Label: "STATE", Size: 2 * mib}}
}

// TestDamage: what leaves the table usable is said, and the partitions stay.
func TestDamage(t *testing.T) {
	const size = 16 * mib
	tests := []struct {
		name   string
		change func(b []byte)
		want   []string // parts of what Damage says
	}{
		{"none", func([]byte) {}, nil},
		{"bit in the primary header", func(b []byte) { b[512+56] ^= 1 }, []string{"primary table is damaged (the header does not match its checksum); the backup is used"}},
		{"bit in the primary entries", func(b []byte) { b[1024+3] ^= 1 }, []string{"primary table is damaged (the entries do not match"}},
		{"primary header wiped", func(b []byte) { clear(b[512:1024]) }, []string{"primary table is damaged (there is none); the backup is used"}},
		{"first MiB wiped", func(b []byte) { clear(b[:mib]) }, []string{"primary table is damaged (there is none)", "no MBR"}},
		{"MBR wiped", func(b []byte) { clear(b[:512]) }, []string{"no MBR protects"}},
		{"bit in the backup header", func(b []byte) { b[size-512+56] ^= 1 }, []string{"backup table is damaged: the header does not match"}},
		{"backup wiped", func(b []byte) { clear(b[size-mib:]) }, []string{"backup table is damaged: there is none"}},
		{"another table as the backup", func(b []byte) { b[size-512+56] ^= 1; seal(b) }, []string{"differs from the primary"}},
		{"primary entries out of the disk", func(b []byte) {
			binary.LittleEndian.PutUint64(b[512+72:], 1<<40)
			seal(b)
		}, []string{"primary table is damaged (the entries are said to be in sectors from 1099511627776"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := create(t, size, twoPartitions()...)
			want := mustRead(t, path).Partitions
			edit(t, path, test.change)
			got := mustRead(t, path)
			if diff := cmp.Diff(want, got.Partitions); diff != "" || len(want) != 2 {
				t.Errorf("partitions (-want +got):\n%s", diff)
			}
			if len(got.Damage) != len(test.want) {
				t.Fatalf("damage %q, want %q", got.Damage, test.want)
			}
			for i, want := range test.want {
				if !strings.Contains(got.Damage[i], want) {
					t.Errorf("damage %q, want %q", got.Damage[i], want)
				}
			}
		})
	}
}

// TestBothDamaged: with neither copy sound there is no table to use, and yet it
// is not a disk without one.
func TestBothDamaged(t *testing.T) {
	const size = 16 * mib
	tests := []struct {
		name   string
		change func(b []byte)
		want   string
	}{
		{"a bit in either", func(b []byte) { b[512+56] ^= 1; b[size-512+56] ^= 1 }, "the primary: the header does not match its checksum; the backup: the header does"},
		{"primary wiped", func(b []byte) { clear(b[:mib]); b[size-33*512] ^= 1 }, "the primary: there is none; the backup: the entries do not match"},
		{"backup wiped", func(b []byte) { clear(b[size-mib:]); b[1024] ^= 1 }, "the backup: there is none"},
	}
	for _, test := range tests {
		path := create(t, size, twoPartitions()...)
		edit(t, path, test.change)
		table, err := read(t, path)
		if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, disk.ErrNoTable) {
			t.Errorf("%s: %v, %v; want %q", test.name, table, err, test.want)
		}
	}
}

// TestGrown reads an image that was made larger: the backup is not at its end.
func TestGrown(t *testing.T) {
	path := create(t, 16*mib, twoPartitions()...)
	if err := os.Truncate(path, 32*mib); err != nil {
		t.Fatal(err)
	}
	got := mustRead(t, path)
	if len(got.Partitions) != 2 || len(got.Damage) != 1 || !strings.Contains(got.Damage[0], "the disk has grown") {
		t.Errorf("partitions %v, damage %q", got.Partitions, got.Damage)
	}
}

// TestHostile: tables with right checksums and wrong contents.
func TestHostile(t *testing.T) {
	le := binary.LittleEndian
	// Both copies, so that there is no better one to fall back to.
	headers := func(at int, v uint64, width int) func(b []byte) {
		return func(b []byte) {
			for _, h := range []int{512, len(b) - 512} {
				if width == 8 {
					le.PutUint64(b[h+at:], v)
				} else {
					le.PutUint32(b[h+at:], uint32(v))
				}
			}
		}
	}
	entries := func(n, at int, data []byte) func(b []byte) {
		return func(b []byte) {
			for _, e := range []int{1024, len(b) - 33*512} {
				copy(b[e+n*128+at:], data)
			}
		}
	}
	lba := func(v uint64) []byte { return le.AppendUint64(nil, v) }
	tests := []struct {
		name   string
		change func(b []byte)
		want   string
	}{
		{"header of 0 bytes", headers(12, 0, 4), "size of 0 bytes"},
		{"header of 4 GiB", headers(12, 1<<32-1, 4), "size of 4294967295 bytes"},
		{"header in another sector", headers(24, 7, 8), "says that it is in sector 7"},
		{"no entries", headers(80, 0, 4), "the table has 0 entries"},
		{"4 billion entries", headers(80, 1<<32-1, 4), "the table has 4294967295 entries"},
		{"entries of 0 bytes", headers(84, 0, 4), "entries have 0 bytes"},
		{"entries of 64 bytes", headers(84, 64, 4), "entries have 64 bytes"},
		{"entries of 129 bytes", headers(84, 129, 4), "entries have 129 bytes"},
		{"entries of 2 GiB", headers(84, 1<<31, 4), "entries have 2147483648 bytes"},
		{"usable beyond the disk", headers(48, 1<<50, 8), "usable sectors are said to be 2048 to 1125899906842624"},
		{"usable from the header on", headers(40, 1, 8), "usable sectors are said to be 1 to"},
		{"usable backwards", headers(40, 1<<60, 8), "usable sectors are said to be"},
		{"entries past the disk", headers(72, 1<<63, 8), "entries are said to be in sectors from 9223372036854775808"},
		{"entries across the end", headers(72, 32767, 8), "entries are said to be in sectors from 32767"},
		{"entries in a partition", headers(72, 4096, 8), "entries lie among the usable sectors"},
		{"partition before the usable sectors", entries(0, 32, lba(34)), `partition 1 ("META"): sectors 34 to 4095`},
		{"partition past the disk", entries(0, 40, lba(1<<62)), `partition 1 ("META"): sectors 2048 to 4611686018427387904`},
		{"partition past 2^63 bytes", entries(1, 32, append(lba(1<<55), lba(1<<55)...)), `partition 2 ("STATE")`},
		{"partition backwards", entries(1, 40, lba(4000)), `partition 2 ("STATE"): sectors 4096 to 4000`},
		{"partitions overlap", entries(1, 32, lba(4095)), `partitions 1 ("META") and 2 ("STATE") overlap at byte 2096640`},
		{"label of half a pair", entries(0, 56, []byte{'M', 0, 0x00, 0xd8, 'E', 0}), "partition 1: its label is not UTF-16"},
		{"label ends in half a pair", entries(1, 56+70, []byte{0x00, 0xd8}), ""},
		{"label of a lone second half", entries(1, 56, []byte{0x00, 0xdc}), "partition 2: its label is not UTF-16"},
		{"label ends in half a pair, no zero", entries(1, 56, []byte(strings.Repeat("x\x00", 35)+"\x00\xd8")), "partition 2: its label is not UTF-16"},
		{"MBR with partitions of its own", func(b []byte) { b[446+4], b[446+16+4] = 0x83, 0x82 }, "MBR with partitions of its own (types 0x83, 0x82)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := create(t, 16*mib, twoPartitions()...)
			edit(t, path, func(b []byte) { test.change(b); seal(b) })
			table, err := read(t, path)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want %q; table %v", err, test.want, table)
			}
			if errors.Is(err, disk.ErrNoTable) {
				t.Errorf("a table that must not be used is taken for none: %v", err)
			}
		})
	}
}

func TestNoTable(t *testing.T) {
	for _, size := range []int64{0, 1, 511, 512, 1535, 1536, 4096, 12288, mib} {
		if table, err := read(t, blank(t, size)); !errors.Is(err, disk.ErrNoTable) {
			t.Errorf("%d zeros: %v, %v", size, table, err)
		}
	}
	mbr := blank(t, mib)
	edit(t, mbr, func(b []byte) { b[446+4], b[510], b[511] = 0x83, 0x55, 0xaa })
	if table, err := read(t, mbr); !errors.Is(err, disk.ErrNoTable) {
		t.Errorf("MBR alone: %v, %v", table, err)
	}
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := disk.Read(f); err == nil || errors.Is(err, disk.ErrNoTable) {
		t.Errorf("a folder: %v", err)
	}
}

func TestFind(t *testing.T) {
	path := blank(t, 16*mib)
	run(t, "gdisk", "sgdisk", "--new=1:0:+1M", "--change-name=1:STATE", "--new=2:0:+1M", "--change-name=2:EPHEMERAL",
		"--new=4:0:+1M", "--change-name=4:STATE", "--new=5:0:+1M", path)
	table := mustRead(t, path)
	tests := []struct {
		name, label, want string
		none              bool
	}{
		{"two", "STATE", `partitions 1 and 4 are both labelled "STATE"`, false},
		{"none", "META", `no partition with that label: "META"; there are 1 "STATE", 2 "EPHEMERAL", 4 "STATE", 5 ""`, true},
		{"other case", "ephemeral", `"ephemeral"; there are`, true},
		{"a part", "EPHEMERA", `"EPHEMERA"; there are`, true},
		{"empty", "", "empty label", false},
	}
	for _, test := range tests {
		p, err := table.Find(test.label)
		if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, disk.ErrNoPartition) != test.none {
			t.Errorf("%s: %v, %v; want %q", test.name, p, err, test.want)
		}
	}
	if _, err := new(disk.Table).Find("X"); !errors.Is(err, disk.ErrNoPartition) {
		t.Errorf("empty table: %v", err)
	}
	if p, err := table.Find("EPHEMERAL"); err != nil || p.Number != 2 {
		t.Errorf("%v, %v", p, err)
	}
}
