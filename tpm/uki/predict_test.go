package uki_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/uki"
)

// judged are sections of which systemd-measure 252 computed PCR 11; test/interop
// asks it for many more.
func judged() []part {
	return []part{{name: ".osrel", data: "ID=x\n"}, {name: ".linux", data: "kernel"}, {name: ".cmdline"}}
}

// TestPredict: the values of systemd-measure, from files and from an image.
func TestPredict(t *testing.T) {
	t.Parallel()
	initrd, none := pcr.Path{"enter-initrd"}, pcr.Path(nil)
	want := map[string]string{
		"sha256 enter-initrd": "7b6534771f02295da9da1a8b431ae1c8f3829fb48cf8e324553d58bbca3f21e6",
		"sha384 enter-initrd": "e8238b9c118dfcd011b0ecd05d56e2ff7e207572284a96559e18aef288884dd0f50a0ca3f5e3fef11266a37a12578e58",
	}
	image := peFile(append(judged(), part{name: ".sdmagic", data: magic252}, part{name: ".text", data: "code"}, part{name: ".pcrsig", data: "{}"})...)
	u := read(t, image)
	if u.Stub != 252 || u.Profiles() != 1 {
		t.Errorf("%s, %d profiles", u.Stub, u.Profiles())
	}
	for name, s := range map[string]uki.Sections{"files": files(t, judged()...), "image": sections(t, u, 0)} {
		p := predict(t, s, uki.Options{Stub: 252, Banks: []pcr.Bank{pcr.SHA256, pcr.SHA384}, Paths: []pcr.Path{initrd, none}})
		if len(p.Values) != 4 {
			t.Fatalf("%s: %d values", name, len(p.Values))
		}
		for _, v := range p.Values {
			if w := want[v.Bank.String()+" "+v.Path.String()]; w != "" && hex.EncodeToString(v.Value) != w {
				t.Errorf("%s: after %q %s, want %s", name, v.Path, v.String(), w)
			}
			policy, err := pcr.Policy(v.Bank, map[int][]byte{11: v.Value})
			if err != nil || !bytes.Equal(policy, v.Policy) {
				t.Errorf("%s: policy %x, %v", name, v.Policy, err)
			}
		}
		if p.Values[0].String() != "11:sha256="+want["sha256 enter-initrd"] || bytes.Equal(p.Values[1].Value, p.Values[0].Value) {
			t.Errorf("%s: %s, then %s", name, p.Values[0].String(), p.Values[1].String())
		}
		var names []string
		for _, m := range p.Measured {
			names = append(names, m.Name)
		}
		if d := cmp.Diff([]string{".linux", ".osrel"}, names); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		sum := sha256.Sum256([]byte("kernel"))
		if m := p.Measured[0]; m.Size != 6 || !bytes.Equal(m.Digests[pcr.SHA256], sum[:]) {
			t.Errorf("%s: %v", name, m)
		}
	}
	if p := predict(t, files(t, judged()...), uki.Options{Stub: 252}); len(p.Values) != 4 || p.Values[3].Path.String() != "enter-initrd:leave-initrd:sysinit:ready" || p.Values[0].Bank != pcr.SHA256 {
		t.Errorf("without options: %v", p.Values)
	}
}

// TestStubs: which sections count, version by version.
func TestStubs(t *testing.T) {
	t.Parallel()
	all := uki.SectionNames()
	newer := map[uki.Stub][]string{252: {".uname", ".sbat", ".ucode", ".profile", ".dtbauto", ".hwids", ".efifw"}}
	newer[253] = newer[252]
	newer[254] = newer[252][2:]
	newer[255] = newer[254]
	newer[256] = newer[252][3:]
	newer[257] = newer[252][6:]
	newer[258], newer[270] = nil, nil
	for stub, missing := range newer {
		for _, name := range all {
			want := name != ".pcrsig" && !slices.Contains(missing, name)
			if stub.Measures(name) != want {
				t.Errorf("%s measures %s: %v", stub, name, !want)
			}
		}
	}
	if uki.Stub(0).Measures(".linux") || uki.Stub(251).Measures(".linux") || uki.Stub(260).Measures(".text") {
		t.Error("something is measured that is not")
	}
	s := files(t, part{name: ".linux", data: "a"}, part{name: ".uname", data: "b"}, part{name: ".hwids", data: "c"}, part{name: ".pcrsig", data: "{}"})
	values := map[string]uki.Stub{}
	for _, stub := range []uki.Stub{252, 254, 257} {
		p := predict(t, s, uki.Options{Stub: stub, Paths: []pcr.Path{nil}})
		values[p.Values[0].String()] = stub
		if stub == 252 {
			if d := cmp.Diff([]string{".uname", ".pcrsig", ".hwids"}, p.Ignored); d != "" {
				t.Error(d)
			}
		}
	}
	if len(values) != 3 {
		t.Errorf("the version makes no difference: %v", values)
	}
}

func TestParseStub(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uki.Stub{"252": 252, "v257": 257, "252.39-1~deb12u2": 252, "258~rc1": 258} {
		if got, err := uki.ParseStub(text); err != nil || got != want {
			t.Errorf("%s is %d, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{"": "is not a version", "25": "is not a version", "2520": "is not a version", "latest": "is not a version", "251": "does not measure into PCR 11"} {
		if _, err := uki.ParseStub(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestPadding: what counts is the size in memory, with zeros if the file has
// less.
func TestPadding(t *testing.T) {
	t.Parallel()
	o := uki.Options{Stub: 252, Paths: []pcr.Path{nil}}
	value := func(parts ...part) string {
		p := predict(t, sections(t, read(t, peFile(parts...)), 0), o)
		return p.Values[0].String()
	}
	whole := func(data string) string {
		p := predict(t, files(t, part{name: ".linux", data: data}), o)
		return p.Values[0].String()
	}
	if value(part{name: ".linux", data: "kernel"}) != whole("kernel") {
		t.Error("the file's alignment counts")
	}
	if value(part{name: ".linux", data: "kernel", memory: 3}) != whole("ker") {
		t.Error("bytes that are not in memory count")
	}
	if value(part{name: ".linux", data: "kernel", memory: 2000}) != whole("kernel"+strings.Repeat("\x00", 1994)) {
		t.Error("zeros in memory do not count")
	}
}

// TestProfiles: the sections of a profile take the place of those for all.
func TestProfiles(t *testing.T) {
	t.Parallel()
	u := read(t, peFile(
		part{name: ".linux", data: "kernel"}, part{name: ".cmdline", data: "quiet"},
		part{name: ".profile", data: "ID=main"},
		part{name: ".profile", data: "ID=debug"}, part{name: ".cmdline", data: "debug"},
	))
	if u.Profiles() != 2 || u.Stub != 0 {
		t.Fatalf("%d profiles, %s", u.Profiles(), u.Stub)
	}
	o := uki.Options{Stub: 257, Paths: []pcr.Path{nil}}
	for profile, want := range [][]part{
		{{name: ".linux", data: "kernel"}, {name: ".cmdline", data: "quiet"}, {name: ".profile", data: "ID=main"}},
		{{name: ".linux", data: "kernel"}, {name: ".cmdline", data: "debug"}, {name: ".profile", data: "ID=debug"}},
	} {
		got, wanted := predict(t, sections(t, u, profile), o), predict(t, files(t, want...), o)
		if got.Values[0].String() != wanted.Values[0].String() {
			t.Errorf("profile %d: %s, want %s", profile, got.Values[0].String(), wanted.Values[0].String())
		}
	}
	for _, profile := range []int{-1, 2} {
		if _, err := u.Sections(profile); err == nil {
			t.Errorf("there is a profile %d", profile)
		}
	}
}

// TestPredictRefuses: no value where it would be wrong.
func TestPredictRefuses(t *testing.T) {
	t.Parallel()
	linux := part{name: ".linux", data: "kernel"}
	tests := []struct {
		want  string
		parts []part
		o     uki.Options
	}{
		{"does not say which systemd-stub", []part{linux}, uki.Options{}},
		{"systemd-stub 251 does not measure", []part{linux}, uki.Options{Stub: 251}},
		{"measured on machines that it fits only", []part{linux, {name: ".dtbauto", data: "tree"}}, uki.Options{Stub: 257}},
		{"two sections .linux", []part{linux, linux}, uki.Options{Stub: 257}},
		{"nothing of the image is measured", []part{{name: ".linux"}}, uki.Options{Stub: 257}},
		{"not known, or wanted twice", []part{linux}, uki.Options{Stub: 257, Banks: []pcr.Bank{0x12}}},
		{"not known, or wanted twice", []part{linux}, uki.Options{Stub: 257, Banks: []pcr.Bank{pcr.SHA256, pcr.SHA256}}},
	}
	for _, test := range tests {
		if p, err := files(t, test.parts...).Predict(test.o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, %v, want %s", p, err, test.want)
		}
	}
	if _, err := files(t, linux).Predict(uki.Options{}); !errors.Is(err, uki.ErrUnknownStub) {
		t.Error(err)
	}
	if _, err := files(t, linux, part{name: ".dtbauto", data: "tree"}).Predict(uki.Options{Stub: 256}); err != nil {
		t.Errorf("a section that this stub does not measure: %v", err)
	}
	if _, err := uki.FileSection(".text", "x"); err == nil || !strings.Contains(err.Error(), ".linux .osrel") {
		t.Error(err)
	}
	if _, err := uki.FileSection(".linux", t.TempDir()); err == nil {
		t.Error("a directory was taken for a kernel")
	}
}
