package diff_test

import (
	"strings"
	"testing"
	"time"

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
			{main, "machine.network.interfaces", diff.Changed, "[eth0, eth1]", "[eth1, eth0]"},
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

// TestLists has lists whose entries have no names, or names in another order.
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
		{"[{address: 1.1.1.1}, {address: 8.8.8.8}]", "[{address: 8.8.8.8}, {address: 1.1.1.1}]", []string{"x changed [1.1.1.1, 8.8.8.8] [8.8.8.8, 1.1.1.1]"}},
		{"[{vlanId: 1}, {vlanId: 2}, {vlanId: 3}]", "[{vlanId: 3}, {vlanId: 4}, {vlanId: 2}]", []string{"x[vlanId=1] removed {vlanId: 1} ", "x[vlanId=4] added  {vlanId: 4}", "x changed [1, 2, 3] [3, 4, 2]"}},
		{"[{image: a}, {image: b}]", "[{image: c}, {image: a}, {image: b}]", []string{"x[image=c] added  {image: c}"}},
		{"[{slot: 1}, {slot: 2}]", "[{slot: 2}, {slot: 1}]", nil},
		{"1", "'1'", []string{"x changed 1 '1'"}},
		{"null", "~", nil},
		{"{keys: [{static: {hunter2: null}}]}", "{keys: [{static: {hunter3: null}}]}", []string{
			"x.keys[0].static changed '[secret]' '[secret]'",
		}},
		{"{a: , b: 1}", "{}", []string{"x.a removed null ", "x.b removed 1 "}},
		{"{a: {b: }}", "{}", []string{"x.a removed {b: null} "}},
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

// TestSecrets: whatever became of a secret, and wherever it stands a second time, it
// is in no difference. Every secret has "hunter" in it.
func TestSecrets(t *testing.T) {
	for _, tt := range []struct{ a, b, want string }{
		{"q: &p hunter2hunter2\nkeys: [{static: {passphrase: *p}}]", "q: &p hunter3hunter3\nkeys: [{static: {passphrase: *p}}]", "q changed '[secret]' '[secret]'; keys[0].static.passphrase changed '[secret]' '[secret]'"},
		{"q: &p hunt\npassword: *p", "q: x\npassword: y", "q changed '[secret]' x; password changed '[secret]' '[secret]'"},
		{"q: x\ntoken: hunter2", "q: hunter2\ntoken: y", "q changed x '[secret]'; token changed '[secret]' '[secret]'"},
		{"passphrase: !hunter2", "passphrase: !hunter3", "passphrase changed '[secret]' '[secret]'"},
		{"passphrase: {hunter2: null}", "passphrase: {hunter3: null}", "passphrase changed '[secret]' '[secret]'"},
		{"passphrase: {hunter2: {hunter3: x}}", "passphrase: {hunter2: {hunter4: x}}", "passphrase changed '[secret]' '[secret]'"},
		{"passphrase: {hunter2: 1}", "passphrase: {hunter2: 1, hunter3: 2}", "passphrase changed '[secret]' '[secret]'"},
		{"passphrase: hunter2", "passphrase: [hunter3]", "passphrase changed '[secret]' '[secret]'"},
		{"passphrase: hunter2", "a: 1", "passphrase removed '[secret]' ; a added  1"},
		{"tokens: [{name: hunter2, a: 1}]", "tokens: [{name: hunter2, a: 2}]", "tokens changed '[secret]' '[secret]'"},
		{"list: [{address: 'http://u:hunter2@h', a: 1}]", "list: [{address: 'http://u:hunter2@h', a: 2}]", "list[address=http://u:[secret]@h].a changed 1 2"},
		{"list: [{name: hunter2, token: hunter2}, {name: b}]", "list: [{name: b}, {name: hunter2, token: hunter2}]", "list changed ['[secret]', b] [b, '[secret]']"},
		{"mirrors: {'http://u:hunter2@h': 1}", "mirrors: {'http://u:hunter2@h': 2}", `mirrors["http://u:[secret]@h"] changed 1 2`},
		{"env: [{name: DB_PASSWORD, value: hunter2}]", "env: [{name: DB_PASSWORD, value: hunter3}]", "env[name=DB_PASSWORD].value changed '[secret]' '[secret]'"},
		{"password: &p hunter2\nm: {*p : 1}", "password: hunter2\nm: {}", `m["[secret]"] removed '[secret]' `},
	} {
		changes, err := diff.Options{}.Streams(read(t, tt.a+"\n"), read(t, tt.b+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range changes {
			got = append(got, c.Path+" "+string(c.Kind)+" "+c.Old+" "+c.New)
		}
		if d := cmp.Diff(tt.want, strings.Join(got, "; ")); d != "" {
			t.Errorf("from %s to %s (-want +got):\n%s", tt.a, tt.b, d)
		}
	}
}

// TestFast: a difference of many texts that are looked at closely takes no minute.
func TestFast(t *testing.T) {
	list := func(value string) *document.Stream {
		return read(t, "list:\n"+strings.Repeat("  - a="+value+"\n", 90_000))
	}
	old, now := list("b"), list("c")
	start := time.Now()
	changes, err := diff.Options{}.Streams(old, now)
	if err != nil || len(changes) != 90_000 {
		t.Errorf("%d changes, %v", len(changes), err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("took %v", took)
	} else {
		t.Log(took)
	}
}
