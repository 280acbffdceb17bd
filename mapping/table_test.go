package mapping_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/mapping"
)

var device = mapping.Device{Number: mapping.Number{Major: 254, Minor: 16}, Size: deviceSize}

// The lines are what cryptsetup 2.6.1 loads; test/vm compares them on a kernel.
func TestTable(t *testing.T) {
	const reference = ":64:logon:cryptsetup:" + uuid + "-d0"
	for _, c := range []struct {
		name   string
		format luks.FormatOptions
		flags  []string
		edits  []string
		opts   mapping.Options
		want   string
	}{
		{
			name: "default", want: "0 512 crypt aes-xts-plain64 " + reference + " 0 254:16 2048 1 sector_size:4096",
		},
		{
			name: "sectors of 512", format: luks.FormatOptions{SectorSize: 512},
			want: "0 512 crypt aes-xts-plain64 " + reference + " 0 254:16 2048",
		},
		{
			name: "Adiantum", format: luks.FormatOptions{Cipher: "xchacha12,aes-adiantum-plain64"},
			want: "0 512 crypt xchacha12,aes-adiantum-plain64 " + strings.Replace(reference, ":64:", ":32:", 1) + " 0 254:16 2048 1 sector_size:4096",
		},
		{
			name: "without the keyring", opts: mapping.Options{NoKeyring: true},
			want: "0 512 crypt aes-xts-plain64 " + strings.Repeat("0", 128) + " 0 254:16 2048 1 sector_size:4096",
		},
		{
			name: "flags in any order and spelling", format: luks.FormatOptions{SectorSize: 512},
			opts: mapping.Options{Flags: []mapping.Flag{"no-write-workqueue", mapping.HighPriority, mapping.AllowDiscards, mapping.HighPriority}},
			want: "0 512 crypt aes-xts-plain64 " + reference + " 0 254:16 2048 3 allow_discards high_priority no_write_workqueue",
		},
		{
			name: "persistent flags and others", flags: []string{"same-cpu-crypt", "allow-discards", "no-journal", "high_priority"},
			opts: mapping.Options{Flags: []mapping.Flag{mapping.AllowDiscards, mapping.NoReadWorkqueue, mapping.SubmitFromCryptCPUs}},
			want: "0 512 crypt aes-xts-plain64 " + reference +
				" 0 254:16 2048 6 allow_discards same_cpu_crypt high_priority submit_from_crypt_cpus no_read_workqueue sector_size:4096",
		},
		{
			name: "persistent flag that nobody knows", flags: []string{"allow-discards"}, edits: []string{`"allow-discards"`, `"from-the-future"`},
			want: "0 512 crypt aes-xts-plain64 " + reference + " 0 254:16 2048 1 sector_size:4096",
		},
		{
			name: "IV offset", edits: []string{`"iv_tweak":"0"`, `"iv_tweak":"8192"`},
			want: "0 512 crypt aes-xts-plain64 " + reference + " 8192 254:16 2048 1 sector_size:4096",
		},
		{
			name: "fixed size", edits: []string{`"size":"dynamic"`, `"size":"65536"`},
			want: "0 128 crypt aes-xts-plain64 " + reference + " 0 254:16 2048 1 sector_size:4096",
		},
		{
			name: "further data offset", edits: []string{`"offset":"1048576"`, `"offset":"1052672"`},
			want: "0 504 crypt aes-xts-plain64 " + reference + " 0 254:16 2056 1 sector_size:4096",
		},
		{
			name: "another digest", edits: []string{`"digests":{"0"`, `"digests":{"3"`},
			want: "0 512 crypt aes-xts-plain64 " + strings.Replace(reference, "-d0", "-d3", 1) + " 0 254:16 2048 1 sector_size:4096",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := header(t, c.format, c.flags, c.edits...)
			table, err := mapping.NewTable(h, h.Keyslots()[0].KeySize, device, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, table.String()); diff != "" {
				t.Errorf("table (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTableRefused(t *testing.T) {
	at := func(size int64) mapping.Device { return mapping.Device{Number: device.Number, Size: size} }
	for _, c := range []struct {
		name  string
		edits []string
		dev   mapping.Device
		opts  mapping.Options
		code  luks.Code
		want  string
	}{
		{name: "null cipher", edits: []string{`"encryption":"aes-xts-plain64","sector`, `"encryption":"cipher_null-ecb","sector`}, code: luks.NullCipherSegment},
		{name: "raw kernel cipher", edits: []string{`"encryption":"aes-xts-plain64","sector`, `"encryption":"capi:xts(aes)-plain64","sector`}, code: luks.CapiCipherSegment},
		{name: "segment flags", edits: []string{`"iv_tweak"`, `"flags":["in-reencryption"],"iv_tweak"`}, code: luks.SegmentFlags},
		{name: "dm-integrity", edits: []string{`"iv_tweak"`, `"integrity":{"type":"hmac(sha256)","journal_encryption":"none","journal_integrity":"none"},"iv_tweak"`}, code: luks.SegmentIntegrity},
		{name: "requirement", edits: []string{`"keyslots_size"`, `"requirements":{"mandatory":["unknown"]},"keyslots_size"`}, code: luks.Requirement},
		{name: "words in the UUID", edits: []string{"4e9f7a52", "0 8:0 0 "}, want: "not of the form 8-4-4-4-12"},
		{name: "data begins at the end", dev: at(dataOffset), want: "begins at byte 1048576, and the device ends at byte 1048576"},
		{name: "data begins beyond", dev: at(dataOffset - 4096), want: "it was truncated"},
		{name: "fixed size beyond", edits: []string{`"size":"dynamic"`, `"size":"266240"`}, want: "takes 266240 bytes from byte 1048576, and the device ends at byte 1310720"},
		{name: "offset near the largest", edits: []string{`"offset":"1048576"`, `"offset":"9223372036854771712"`}, want: "it was truncated"},
		{name: "odd device", dev: at(deviceSize - 512), want: "resize the device by 512 bytes"},
		{name: "odd IV offset", edits: []string{`"iv_tweak":"0"`, `"iv_tweak":"9"`}, want: "iv_tweak 9 is not a multiple"},
		{name: "unknown flag", opts: mapping.Options{Flags: []mapping.Flag{"iv_large_sectors"}}, want: `flag "iv_large_sectors"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.dev.Size == 0 {
				c.dev = device
			}
			table, err := mapping.NewTable(header(t, luks.FormatOptions{}, nil, c.edits...), 64, c.dev, c.opts)
			if err == nil {
				t.Fatalf("it is mapped: %s", table)
			}
			if c.code != "" && !errors.Is(err, c.code) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("refused with: %v\nwant %s %s", err, c.code, c.want)
			}
		})
	}
}

// The rest of a sector at the end of a device is not used, as cryptsetup has it.
func TestTableRoundsDown(t *testing.T) {
	dev := device
	dev.Size += 511
	table, err := mapping.NewTable(header(t, luks.FormatOptions{}, nil), 64, dev, mapping.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if table.Sectors != 512 {
		t.Errorf("%d sectors, want 512", table.Sectors)
	}
}

func TestParseFlag(t *testing.T) {
	for _, want := range mapping.Flags() {
		for _, s := range []string{string(want), strings.ReplaceAll(string(want), "_", "-")} {
			if got, err := mapping.ParseFlag(s); err != nil || got != want {
				t.Errorf("ParseFlag(%q) = %q, %v", s, got, err)
			}
		}
	}
	for _, s := range []string{"", "no-journal", "allow discards", "sector_size:512"} {
		if f, err := mapping.ParseFlag(s); err == nil {
			t.Errorf("ParseFlag(%q) = %q", s, f)
		}
	}
	for _, s := range luks.Flags() {
		if _, err := mapping.ParseFlag(s); (err == nil) != (s != "no-journal") { // dm-integrity's
			t.Errorf("ParseFlag(%q): %v", s, err)
		}
	}
}

func TestNumber(t *testing.T) {
	var n mapping.Number
	if err := n.UnmarshalText([]byte("254:16")); err != nil || n != device.Number {
		t.Errorf("254:16 gives %s, %v", n, err)
	}
	for _, s := range []string{"", "254", "254:", "254:16 ", "-1:0", "254:16:1", "/dev/vda"} {
		if err := n.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%q is taken as %s", s, n)
		}
	}
}

// TestConfigured: the options of a configuration and allowDiscards, which are
// flags that the kernel knows.
func TestConfigured(t *testing.T) {
	t.Parallel()
	got := mapping.Configured([]string{"no_read_workqueue", "same_cpu_crypt"}, true)
	want := []mapping.Flag{mapping.NoReadWorkqueue, mapping.SameCPUCrypt, mapping.AllowDiscards}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := mapping.Configured(nil, false); len(got) > 0 {
		t.Errorf("%q of nothing", got)
	}
}
