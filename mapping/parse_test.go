package mapping

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// What the kernel is told, it shows, and what it shows is read back: all but a
// key that stands in the table.
func TestParseTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := &Table{
			Sectors:    rapid.Int64Range(1, 1<<50).Draw(t, "sectors"),
			Cipher:     rapid.SampledFrom([]string{"aes-xts-plain64", "xchacha12,aes-adiantum-plain64"}).Draw(t, "cipher"),
			KeySize:    rapid.SampledFrom([]int{32, 64}).Draw(t, "key size"),
			Key:        rapid.SampledFrom([]string{"", "cryptsetup:4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b-d0"}).Draw(t, "key"),
			IVOffset:   rapid.Uint64().Draw(t, "iv"),
			Device:     Number{rapid.Uint32().Draw(t, "major"), rapid.Uint32().Draw(t, "minor")},
			Offset:     rapid.Int64Range(0, 1<<50).Draw(t, "offset"),
			SectorSize: rapid.SampledFrom([]int{512, 1024, 2048, 4096}).Draw(t, "sector size"),
		}
		for _, f := range Flags() {
			if rapid.Bool().Draw(t, string(f)) {
				want.Flags = append(want.Flags, f)
			}
		}
		arguments := want.arguments(make([]byte, want.KeySize))
		defer arguments.Wipe()
		got, err := parseTable(want.Sectors, arguments.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("table (-want +got):\n%s", diff)
		}
	})
}

func TestParseTableErrors(t *testing.T) {
	for _, s := range []string{"", "aes-xts-plain64", "aes-xts-plain64 00 0 254:16", "c 00 x 254:16 0", "c 00 0 disk 0", "c 00 0 254:16 x"} {
		if table, err := parseTable(8, []byte(s)); err == nil {
			t.Errorf("%q is read as %s", s, table)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"luks2-STATE", "a", "data_1.2", strings.Repeat("n", nameRoom)} {
		if err := checkName(name); err != nil {
			t.Errorf("checkName(%q): %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "control", "a/b", "a b", "ä", "a\x00", strings.Repeat("n", nameRoom+1)} {
		if err := checkName(name); err == nil {
			t.Errorf("%q is taken as a name", name)
		}
	}
	if n := len(luks2Prefix) + 32 + 1 + nameRoom + 1; n != 129 {
		t.Errorf("the longest UUID has %d bytes with its NUL, and the kernel's field 129", n)
	}
}

// drop keeps what the kernel knows: 1.24 is Linux 6.1, 1.26 is 6.10.
func TestDrop(t *testing.T) {
	for _, c := range []struct {
		version [3]uint32
		dropped []Flag
	}{
		{[3]uint32{1, 18, 1}, []Flag{HighPriority, NoReadWorkqueue, NoWriteWorkqueue}},
		{[3]uint32{1, 22, 0}, []Flag{HighPriority}},
		{[3]uint32{1, 24, 0}, []Flag{HighPriority}},
		{[3]uint32{1, 26, 0}, nil},
		{[3]uint32{2, 0, 0}, nil},
	} {
		table := &Table{Flags: Flags()}
		dropped := table.drop(c.version)
		if diff := cmp.Diff(c.dropped, dropped); diff != "" || len(dropped)+len(table.Flags) != len(Flags()) {
			t.Errorf("%v (-want +got):\n%s", c.version, diff)
		}
	}
}
