package uki_test

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/uki"
)

// Offsets in what peFile writes.
const (
	atOptional = 0x40 + 4 + 20
	atSections = atOptional + 112
)

// set16 and set32 change numbers in a copy.
func set16(b []byte, at int, v uint16) []byte {
	b = bytes.Clone(b)
	binary.LittleEndian.PutUint16(b[at:], v)
	return b
}

func set32(b []byte, at int, v uint32) []byte {
	b = bytes.Clone(b)
	binary.LittleEndian.PutUint32(b[at:], v)
	return b
}

// TestHostile: images that are damaged or made to harm.
func TestHostile(t *testing.T) {
	t.Parallel()
	linux := part{name: ".linux", data: "kernel"}
	good := peFile(linux)
	tests := []struct {
		name  string
		image []byte
		want  string
	}{
		{"nothing", nil, "not a PE file"},
		{"text", []byte(strings.Repeat("text", 100)), "not a PE file"},
		{"cut in the header", good[:100], "not a PE file"},
		{"cut in a section", good[:len(good)-512], "it is cut off or damaged"},
		{"a program for an operating system", set16(good, atOptional+68, 3), "no EFI application"},
		{"no optional header", set16(good, 0x40+4+16, 0), "no EFI application"},
		{"no kernel", peFile(part{name: ".text", data: "code"}), "no unified kernel image"},
		{"empty kernel", peFile(part{name: ".linux"}), "no unified kernel image"},
		{"more sections than the file has", set16(good, 0x40+4+2, 0xffff), "not a PE file"},
		{"section past the end", set32(good, atSections+20, 0xffffff00), "it is cut off or damaged"},
		{"section larger than the file", set32(good, atSections+16, 0xffffff00), "it is cut off or damaged"},
		{"huge in memory", set32(good, atSections+8, 0xfffffff0), "more than 1073741824"},
		{"few bytes for much memory", set32(good, atSections+8, 512<<20), "has 536870912 bytes in memory and only 512 in the file"},
		{"two kernels", peFile(linux, linux), "two sections .linux"},
		{"overlap", peFile(linux, part{name: ".initrd", data: "initrd", address: 0x1005}), `".linux" and ".initrd" of the image overlap`},
		{"overlap, other order", peFile(part{name: ".initrd", data: "initrd", address: 0x3000}, part{name: ".linux", data: "kernel", address: 0x2ffb}), "overlap"},
		{"old stub", peFile(linux, part{name: ".sdmagic", data: strings.Replace(magic252, "252.39", "249.1", 1)}), "does not measure into PCR 11"},
		{"stub of nonsense", peFile(linux, part{name: ".sdmagic", data: strings.Replace(magic252, "252.39", "x", 1)}), "is not a version"},
		{"large magic", peFile(linux, part{name: ".sdmagic", data: magic252, memory: 5000}), "more than 4096"},
		{"symbols past the end", set32(set32(good, 0x40+4+8, 0x7fffff00), 0x40+4+12, 0x7fffffff), "not a PE file"},
	}
	for _, test := range tests {
		u, err := uki.Read(bytes.NewReader(test.image), int64(len(test.image)))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, %v, want %s", test.name, u, err, test.want)
		}
	}
	if _, err := uki.Read(bytes.NewReader(good), 3<<30); err == nil || !strings.Contains(err.Error(), "2147483648") {
		t.Error(err)
	}
	for _, ok := range [][]byte{good, peFile(linux, part{name: ".sdmagic", data: "something else"}), peFile(linux, part{name: ".dtbauto", data: "a"}, part{name: ".dtbauto", data: "b"})} {
		if u := read(t, ok); u.Stub != 0 {
			t.Errorf("%s was found", u.Stub)
		}
	}
}

// TestLongNames: a section with a reference to its name is not the section of
// that name.
func TestLongNames(t *testing.T) {
	t.Parallel()
	image := peFile(part{name: ".linux", data: "kernel"}, part{name: "/4", data: "quiet"})
	table := binary.LittleEndian.AppendUint32(nil, 4+9)
	at := uint32(len(image))
	image = append(append(image, table...), ".cmdline\x00"...) // string table, after no symbols
	image = set32(image, 0x40+4+8, at)
	o := uki.Options{Stub: 252, Paths: []pcr.Path{nil}}
	got, want := predict(t, sections(t, read(t, image), 0), o), predict(t, files(t, part{name: ".linux", data: "kernel"}), o)
	if got.Values[0].String() != want.Values[0].String() {
		t.Errorf("the section counts: %s, want %s", got.Values[0].String(), want.Values[0].String())
	}
	f, err := pe.NewFile(bytes.NewReader(image))
	if err != nil || f.Sections[1].Name != ".cmdline" { // else this test shows nothing
		t.Errorf("package pe reads %v, %v", f, err)
	}
}

// TestShorter: a file that became shorter is not taken for one with zeros.
func TestShorter(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, []byte("kernel"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := uki.FileSection(".linux", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 3); err != nil {
		t.Fatal(err)
	}
	if p, err := (uki.Sections{s}).Predict(uki.Options{Stub: 252}); err == nil || !strings.Contains(err.Error(), "became shorter") {
		t.Errorf("%v, %v", p, err)
	}
}

// TestOpen: a file that changes while it is open gives an error, not a value.
func TestOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "image.efi")
	if err := os.WriteFile(path, peFile(part{name: ".linux", data: "kernel"}), 0o644); err != nil {
		t.Fatal(err)
	}
	u, err := uki.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	s := sections(t, u, 0)
	predict(t, s, uki.Options{Stub: 252})
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Predict(uki.Options{Stub: 252}); err == nil {
		t.Errorf("%v of a closed file", p)
	}
	for _, other := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none"), os.DevNull} {
		if _, err := uki.Open(other); err == nil || !strings.Contains(err.Error(), other) {
			t.Errorf("%s: %v", other, err)
		}
	}
}

// fuzzSeeds are images by what they are for.
func fuzzSeeds() map[string][]byte {
	linux := part{name: ".linux", data: "kernel"}
	return map[string][]byte{
		"image":    peFile(linux, part{name: ".sdmagic", data: magic252}, part{name: ".osrel", data: "ID=x"}),
		"profiles": peFile(linux, part{name: ".profile", data: "a"}, part{name: ".profile", data: "b"}),
		"signed":   peFile(linux, part{name: ".pcrsig", data: "{}"}, part{name: ".pcrpkey", data: "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"}),
		"padded":   peFile(part{name: ".linux", data: "kernel", memory: 1000}),
		"overlap":  peFile(linux, part{name: ".initrd", data: "x", address: 0x1001}),
		"cut":      peFile(linux)[:300],
	}
}

func TestFuzzSeeds(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"image": true, "profiles": true, "signed": true, "padded": true, "overlap": false, "cut": false} {
		image := fuzzSeeds()[name]
		if _, err := uki.Read(bytes.NewReader(image), int64(len(image))); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, image := range fuzzSeeds() {
		f.Add(image)
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		u, err := uki.Read(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			return
		}
		for profile := range min(u.Profiles(), 4) {
			s := sections(t, u, profile)
			_, _ = s.PolicyKey()
			_, _ = s.Signatures()
			p, err := s.Predict(uki.Options{Stub: max(u.Stub, 252), Paths: []pcr.Path{nil}})
			if err == nil && (len(p.Values) != 1 || len(p.Measured) == 0) {
				t.Errorf("%v", p)
			}
		}
	})
}
