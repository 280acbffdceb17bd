package diff_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/config/diff"
	"github.com/cryptctl/cryptctl/config/document"
)

func read(t *testing.T, text string) *document.Stream {
	t.Helper()
	s, err := document.Read("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const (
	before = `# one
machine:
  type: worker
  token: hunter1
  certSANs: [a, b, c, d]
  sysctls: {vm.max: 1, x: 1}
  network:
    interfaces:
      - interface: eth0
        mtu: 1500
      - interface: eth1
---
apiVersion: v1alpha1
kind: VolumeConfig
name: STATE
encryption:
  provider: luks2
  keys:
    - slot: 0
      static: {passphrase: hunter2}
    - slot: 1
      nodeID: {}
---
apiVersion: v1alpha1
kind: KmsgLogConfig
name: a
url: tcp://h
`
	after = `apiVersion: v1alpha1
kind: VolumeConfig
name: STATE
encryption:
  keys:
    - {slot: 2, static: {passphrase: hunter4}}
    - {slot: 0, static: {passphrase: hunter3}}
  provider: luks2
  cipher: {}
---
machine:
  token: hunter1 # the same
  type: [controlplane]
  certSANs:
    - a
    - x
    - d
  sysctls: {x: 1, y.z: "two\nlines"}
  network:
    interfaces:
      - interface: eth1
      - interface: eth0
        mtu: 9000
---
apiVersion: v1alpha1
kind: TrustedRootsConfig
name: b
certificates: pem
`
)

func TestStreams(t *testing.T) {
	main := document.ID{Kind: "v1alpha1"}
	state := document.ID{APIVersion: "v1alpha1", Kind: "VolumeConfig", Name: "STATE"}
	want := func(old, now, added string) []diff.Change {
		return []diff.Change{
			{main, "machine.type", diff.Changed, "worker", "[controlplane]"},
			{main, "machine.certSANs[1]", diff.Changed, "b", "x"},
			{main, "machine.certSANs[2]", diff.Removed, "c", ""},
			{main, `machine.sysctls["vm.max"]`, diff.Removed, "1", ""},
			{main, `machine.sysctls["y.z"]`, diff.Added, "", `"two\nlines"`},
			{main, "machine.network.interfaces[interface=eth0].mtu", diff.Changed, "1500", "9000"},
			{state, "encryption.keys[slot=0].static.passphrase", diff.Changed, old, now},
			{state, "encryption.keys[slot=1]", diff.Removed, "{slot: 1, nodeID: {}}", ""},
			{state, "encryption.keys[slot=2]", diff.Added, "", "{slot: 2, static: {passphrase: " + added + "}}"},
			{state, "encryption.cipher", diff.Added, "", "{}"},
			{document.ID{APIVersion: "v1alpha1", Kind: "KmsgLogConfig", Name: "a"}, "", diff.Removed, "{apiVersion: v1alpha1, kind: KmsgLogConfig, name: a, url: 'tcp://h'}", ""},
			{document.ID{APIVersion: "v1alpha1", Kind: "TrustedRootsConfig", Name: "b"}, "", diff.Added, "", "{apiVersion: v1alpha1, kind: TrustedRootsConfig, name: b, certificates: pem}"},
		}
	}
	for _, tt := range []struct {
		options diff.Options
		want    []diff.Change
	}{
		{diff.Options{}, want("'[secret]'", "'[secret]'", "'[secret]'")},
		{diff.Options{Secrets: true}, want("hunter2", "hunter3", "hunter4")},
	} {
		got, err := tt.options.Streams(read(t, before), read(t, after))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%+v (-want +got):\n%s", tt.options, d)
		}
	}
}

// TestSame: order of documents and fields, comments, styles and aliases are no
// difference.
func TestSame(t *testing.T) {
	a := read(t, before+"---\nkind: X\napiVersion: y\nb: &b {c: 1}\nd: *b\n")
	b := read(t, "kind: X\napiVersion: y\nd:\n  c: 1 # c\nb: {c: 1}\n---\n"+before)
	for _, pair := range [][2]*document.Stream{{a, b}, {b, a}, {a, a}} {
		if got, err := (diff.Options{}).Streams(pair[0], pair[1]); err != nil || len(got) != 0 {
			t.Errorf("%v, %v", got, err)
		}
	}
}

// TestLists has the lists whose entries have no names.
func TestLists(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want []string
	}{
		{"[a, b]", "[b]", []string{"x[0] removed a "}},
		{"[b]", "[a, b]", []string{"x[0] added  a"}},
		{"[]", "[a]", []string{"x[0] added  a"}},
		{"[{slot: 0}, {slot: 0}]", "[{slot: 0}, {slot: 1}]", []string{"x[1].slot changed 0 1"}},
		{"[[1], [2]]", "[[1], [2, 3]]", []string{"x[1][1] added  3"}},
		{"{a: 1}", "[1]", []string{"x changed {a: 1} [1]"}},
		{"1", "'1'", []string{"x changed 1 '1'"}},
		{"null", "~", nil},
		{"{keys: [{static: {hunter2: null}}]}", "{keys: [{static: {hunter3: null}}]}", []string{
			"x.keys[0].static[secret] removed null ", "x.keys[0].static[secret] added  null",
		}},
		{"{key: a}", "{key: b}", []string{"x.key changed '[secret]' '[secret]'"}},
	} {
		changes, err := diff.Options{}.Streams(read(t, "x: "+tt.a+"\n"), read(t, "x: "+tt.b+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range changes {
			got = append(got, c.Path+" "+string(c.Kind)+" "+c.Old+" "+c.New)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("from %s to %s (-want +got):\n%s", tt.a, tt.b, d)
		}
	}
	if _, err := (diff.Options{}).Streams(read(t, "a: &a {b: *a}\n"), read(t, "a: 1\n")); err == nil {
		t.Error("what has no end has a difference")
	}
}
