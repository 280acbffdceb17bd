package disk_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cryptctl/cryptctl/disk"
)

func TestParseSize(t *testing.T) {
	tests := []struct {
		in   string
		want int64
		err  string
	}{
		{"0", 0, ""},
		{"512", 512, ""},
		{"007", 7, ""},
		{"1K", 1024, ""},
		{"1KiB", 1024, ""},
		{"100M", 100 * mib, ""},
		{"100MiB", 100 * mib, ""},
		{"1G", 1 << 30, ""},
		{"3TiB", 3 << 40, ""},
		{"9223372036854775807", 1<<63 - 1, ""},
		{"8388607T", 8388607 << 40, ""},
		{"8388608T", 0, "more than 2^63"},
		{"9223372036854775808", 0, "not a whole number"},
		{"99999999999999999999M", 0, "not a whole number"},
		{"", 0, "not a whole number"},
		{"M", 0, "not a whole number"},
		{"-1", 0, "not a whole number"},
		{"+1", 0, "not a whole number"},
		{"1.5G", 0, `"1.5" is not a whole number`},
		{"1_000", 0, "not a whole number"},
		{"0x10", 0, "not a whole number"},
		{"100MB", 0, `unit "MB" is not known; write K, M, G or T`},
		{"100m", 0, `unit "m" is not known`},
		{"100 M", 0, `unit " M" is not known`},
		{"5iB", 0, `unit "iB" is not known`},
		{"5KiBiB", 0, `unit "KiBiB" is not known`},
		{"5B", 0, `unit "B" is not known`},
		{"٥", 0, "is not known"},
	}
	for _, test := range tests {
		got, err := disk.ParseSize(test.in)
		if test.err == "" && (err != nil || got != test.want) || test.err != "" && (err == nil || got != 0 || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%q: %d, %v; want %d, %q", test.in, got, err, test.want, test.err)
		}
	}
}

func TestParseSpec(t *testing.T) {
	tests := []struct {
		in   string
		want disk.Spec
		err  string
	}{
		{"STATE=100MiB", disk.Spec{Label: "STATE", Size: 100 * mib}, ""},
		{"EPHEMERAL=rest", disk.Spec{Label: "EPHEMERAL"}, ""},
		{"a=b=1M", disk.Spec{Label: "a=b", Size: mib}, ""},
		{"two words=512", disk.Spec{Label: "two words", Size: 512}, ""},
		{"STATE", disk.Spec{}, "write LABEL=SIZE, as in STATE=100MiB, or LABEL=rest"},
		{"", disk.Spec{}, "write LABEL=SIZE"},
		{"=100M", disk.Spec{}, "label is empty"},
		{"STATE=", disk.Spec{}, "not a whole number"},
		{"STATE=0", disk.Spec{}, "write STATE=rest"},
		{"STATE=REST", disk.Spec{}, `unit "REST" is not known`},
		{"ST\nATE=1M", disk.Spec{}, "not plain text"},
		{strings.Repeat("x", 37) + "=1M", disk.Spec{}, "longer than 36"},
	}
	for _, test := range tests {
		got, err := disk.ParseSpec(test.in)
		if test.err == "" && err != nil || got != test.want || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%q: %v, %v; want %v, %q", test.in, got, err, test.want, test.err)
		}
	}
}

// TestParseSizeOfAny: a size is what its digits and its unit say, or an error.
func TestParseSizeOfAny(t *testing.T) {
	units := []string{"", "K", "M", "G", "T"}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<22).Draw(t, "n")
		unit := rapid.IntRange(0, 4).Draw(t, "unit")
		suffix := units[unit]
		if unit > 0 && rapid.Bool().Draw(t, "long") {
			suffix += "iB"
		}
		if got, err := disk.ParseSize(fmt.Sprint(n, suffix)); err != nil || got != n<<(10*unit) {
			t.Fatalf("%d%s: %d, %v", n, suffix, got, err)
		}
	})
}

func FuzzParseSpec(f *testing.F) {
	for _, s := range []string{"STATE=100MiB", "EPHEMERAL=rest", "a=b=1M", "=", "x=8388608T"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		spec, err := disk.ParseSpec(s)
		if err == nil && (spec.Size < 0 || spec.Label == "" || !strings.HasPrefix(s, spec.Label+"=")) {
			t.Errorf("%q: %v", s, spec)
		}
	})
}
