package node_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/meta"
	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/secret"
)

func secretOf(s string) *secret.Bytes { return secret.Copy([]byte(s)) }

func TestFirstBoot(t *testing.T) {
	t.Parallel()
	r := newRig(t, "u-data")
	r.mustReboot(t)
	r.wantPhase(t, node.Maintenance)
	for _, label := range []string{"META", "STATE", "EPHEMERAL"} {
		if len(bytes.Trim(r.image(t, label), "\x00")) > 0 {
			t.Errorf("maintenance wrote %s", label)
		}
	}
	conf := config(k("s0", "s1"), k("e0"), "data")
	r.apply(t, conf, node.Auto)
	r.wantPhase(t, node.Running)
	r.wantOpen(t, "STATE", "EPHEMERAL", "u-data")
	if v := r.volume(t, "EPHEMERAL"); !v.Formatted || !v.Encrypted || v.Dir != r.dir("EPHEMERAL") || !slices.Equal(v.Kinds, k("static")) {
		t.Errorf("%+v", v)
	}
	r.write(t, "STATE")
	r.write(t, "EPHEMERAL")
	uuid := r.header(t, "EPHEMERAL").UUID()

	before := map[string][]byte{}
	for _, label := range []string{"META", "STATE", "EPHEMERAL", "u-data"} {
		before[label] = r.image(t, label)
	}
	r.mustReboot(t)
	r.wantPhase(t, node.Running)
	r.wantOpen(t, "STATE", "EPHEMERAL", "u-data")
	if !r.has(t, "STATE") || !r.has(t, "EPHEMERAL") || r.header(t, "EPHEMERAL").UUID() != uuid || r.volume(t, "EPHEMERAL").Formatted {
		t.Error("the second boot formatted something")
	}
	for label, b := range before {
		if !bytes.Equal(b, r.image(t, label)) {
			t.Errorf("the second boot wrote %s", label)
		}
	}
	if tags := r.metaTags(t); !slices.Equal(tags, []meta.Tag{9, 192}) {
		t.Errorf("tags in META: %v", tags)
	}
	stored, err := os.ReadFile(filepath.Join(r.dir("STATE"), "config.yaml"))
	if err != nil || string(stored) != conf {
		t.Errorf("stored configuration: %v", err)
	}
}

// TestRotation changes all keys of both volumes at once.
func TestRotation(t *testing.T) {
	t.Parallel()
	for _, mode := range []node.Mode{node.Auto, node.NoReboot, node.Staged} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			r := running(t, config(k("s0", "s1"), k("e0", "e1")))
			r.write(t, "EPHEMERAL")
			a := r.apply(t, config(k("S0"), k("E0", "E1", "E2")), mode)
			when := map[node.Mode]node.When{node.Auto: node.Now, node.NoReboot: node.Now, node.Staged: node.NextBoot}[mode]
			if len(a.Changes) != 2 || a.Changes[0].When != when || a.Reboot {
				t.Errorf("changes %+v", a)
			}
			if mode == node.Staged {
				if !r.opensWith(t, "STATE", "s0") || r.opensWith(t, "EPHEMERAL", "E0") {
					t.Error("staging changed a header")
				}
				if p := r.volume(t, "EPHEMERAL").Pending; len(p) != 1 || p[0] != "keys (next boot)" {
					t.Errorf("pending %q", p)
				}
				r.mustReboot(t)
			}
			for range 2 {
				r.wantOpen(t, "STATE", "EPHEMERAL")
				for key, label := range map[string]string{"S0": "STATE", "E0": "EPHEMERAL", "E2": "EPHEMERAL"} {
					if !r.opensWith(t, label, key) {
						t.Errorf("%s does not open %s", key, label)
					}
				}
				for key, label := range map[string]string{"s0": "STATE", "s1": "STATE", "e0": "EPHEMERAL", "e1": "EPHEMERAL"} {
					if r.opensWith(t, label, key) {
						t.Errorf("%s still opens %s", key, label)
					}
				}
				if tags := r.metaTags(t); !slices.Equal(tags, []meta.Tag{9, 192}) {
					t.Errorf("tags in META: %v", tags)
				}
				if left, _ := filepath.Glob(filepath.Join(r.dir("STATE"), "cryptctl/former/*")); len(left) > 0 {
					t.Errorf("former configurations left: %q", left)
				}
				r.mustReboot(t)
			}
			if !r.has(t, "EPHEMERAL") {
				t.Error("data lost")
			}
		})
	}
}

func TestTry(t *testing.T) {
	t.Parallel()
	before, tried := config(k("s0"), k("e0")), config(k("S0"), k("E0"))
	r := running(t, before)
	r.opts.TryTimeout = 2 * time.Second
	r.mustReboot(t)
	r.apply(t, tried, node.Try)
	if !r.opensWith(t, "STATE", "S0") || !r.opensWith(t, "EPHEMERAL", "E0") || !r.Status().Trial {
		t.Error("what is on trial is not in force")
	}
	for deadline := time.Now().Add(10 * time.Second); r.Status().Trial; { // shown until the slots have their keys again
		if time.Now().After(deadline) {
			t.Fatal("it was not taken back")
		}
		time.Sleep(time.Millisecond)
	}
	if r.opensWith(t, "STATE", "S0") || r.opensWith(t, "EPHEMERAL", "E0") || !r.opensWith(t, "EPHEMERAL", "e0") {
		t.Error("keys on trial stayed")
	}
	// The power fails while it is on trial: the next boot has the old keys.
	r.opts.TryTimeout = time.Hour
	r.mustReboot(t)
	r.apply(t, tried, node.Try)
	r.mustReboot(t)
	r.wantOpen(t, "STATE", "EPHEMERAL")
	if !r.opensWith(t, "STATE", "s0") || r.opensWith(t, "EPHEMERAL", "E0") {
		t.Error("after a power cut: not the keys before the trial")
	}
	// Another Apply keeps it.
	r.apply(t, tried, node.Try)
	r.apply(t, tried, node.Auto)
	r.mustReboot(t)
	if r.wantOpen(t, "STATE", "EPHEMERAL"); !r.opensWith(t, "STATE", "S0") || r.opensWith(t, "EPHEMERAL", "e0") {
		t.Error("what was applied after the trial is not in force")
	}
}

// TestWhen: what a mode refuses changes nothing.
func TestWhen(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")))
	cipher := strings.Replace(config(k("s0"), k("E0")), "encryption:\n  provider: luks2\n", "encryption:\n  provider: luks2\n  blockSize: 512\n", 2)
	options := strings.Replace(config(k("s0"), k("E0")), "encryption:\n  provider: luks2\n", "encryption:\n  provider: luks2\n  options: [no_read_workqueue]\n", 2)
	for _, test := range []struct {
		name, config string
		mode         node.Mode
		want         string
	}{
		{"wipe, auto", config(k("s0"), nil), node.Auto, "EPHEMERAL, encryption: to be plain (wipe)"},
		{"wipe, no-reboot", cipher, node.NoReboot, "another sector size: 512 bytes (wipe)"},
		{"wipe, try", config(nil, k("e0")), node.Try, "STATE, encryption: to be plain (wipe)"},
		{"next boot, no-reboot", options, node.NoReboot, "EPHEMERAL, encryption.options: options of the mapping (next boot)"},
		{"a mode", config(k("s0"), k("e0")), "now", "must be auto"},
		{"not a configuration", "machine: [", node.Auto, "the configuration:2"},
	} {
		meta, state, ephemeral := r.image(t, "META"), r.image(t, "STATE"), r.image(t, "EPHEMERAL")
		if _, err := r.Apply(t.Context(), []byte(test.config), test.mode); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
		if !bytes.Equal(meta, r.image(t, "META")) || !bytes.Equal(state, r.image(t, "STATE")) || !bytes.Equal(ephemeral, r.image(t, "EPHEMERAL")) {
			t.Errorf("%s: something was written", test.name)
		}
	}
	a := r.apply(t, options, node.Auto)
	if !a.Reboot || !r.opensWith(t, "EPHEMERAL", "E0") {
		t.Errorf("auto: %+v", a)
	}
}

// TestMigration goes from plain to encrypted and back, EPHEMERAL first, then
// STATE.
func TestMigration(t *testing.T) {
	t.Parallel()
	plain, half, full := config(nil, nil), config(nil, k("e0")), config(k("s0"), k("e0"))
	r := running(t, plain)
	r.write(t, "STATE")
	r.write(t, "EPHEMERAL")
	r.mustReboot(t)
	r.wantOpen(t, "STATE", "EPHEMERAL")
	if !r.has(t, "EPHEMERAL") || r.header(t, "EPHEMERAL") != nil || r.header(t, "STATE") != nil {
		t.Fatal("not plain")
	}
	for _, step := range []struct {
		config    string
		encrypted bool
	}{{half, true}, {plain, false}, {half, true}} {
		r.apply(t, step.config, node.Staged)
		if p := r.volume(t, "EPHEMERAL").Pending; len(p) != 1 || !strings.HasSuffix(p[0], "(wipe)") {
			t.Errorf("pending %q", p)
		}
		if err := r.Reset(t.Context(), k("EPHEMERAL")); err != nil {
			t.Fatal(err)
		}
		r.mustReboot(t)
		r.wantOpen(t, "STATE", "EPHEMERAL")
		if v := r.volume(t, "EPHEMERAL"); v.Encrypted != step.encrypted || r.has(t, "EPHEMERAL") || !r.has(t, "STATE") {
			t.Errorf("after the wipe: %+v", v)
		}
		r.write(t, "EPHEMERAL")
	}
	for _, conf := range []string{full, half} {
		if err := r.Reset(t.Context(), k("STATE")); err != nil {
			t.Fatal(err)
		}
		if tags := r.metaTags(t); len(tags) > 0 {
			t.Errorf("META still has %v", tags)
		}
		r.mustReboot(t)
		r.wantPhase(t, node.Maintenance)
		r.apply(t, conf, node.Auto)
		for range 2 {
			r.wantOpen(t, "STATE", "EPHEMERAL")
			if encrypted := r.header(t, "STATE") != nil; encrypted != (conf == full) || r.has(t, "STATE") || !r.has(t, "EPHEMERAL") {
				t.Errorf("STATE encrypted: %v; EPHEMERAL's data: %v", encrypted, r.has(t, "EPHEMERAL"))
			}
			r.mustReboot(t)
		}
	}
}

// TestWithoutWipe: a staged change that needs a wipe, and a reboot without one.
func TestWithoutWipe(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), nil))
	r.write(t, "EPHEMERAL")
	r.apply(t, config(k("s0"), k("e0")), node.Staged)
	before := r.image(t, "EPHEMERAL")
	r.mustReboot(t)
	if v := r.volume(t, "EPHEMERAL"); v.Phase != node.VolumeRefused || v.Dir != "" || !strings.Contains(v.Errors[0], "holds something else") {
		t.Errorf("%+v", v)
	}
	if !bytes.Equal(before, r.image(t, "EPHEMERAL")) {
		t.Error("it was written")
	}
	r.apply(t, config(k("s0"), nil), node.Staged)
	r.mustReboot(t)
	if r.wantOpen(t, "EPHEMERAL"); !r.has(t, "EPHEMERAL") {
		t.Error("the way back is closed")
	}
}

// TestFilledMeanwhile: between maintenance and the first configuration someone
// puts data where STATE or EPHEMERAL should be. It stays, whatever is booted next.
func TestFilledMeanwhile(t *testing.T) {
	t.Parallel()
	for _, label := range k("STATE", "EPHEMERAL") {
		for _, conf := range []string{config(nil, nil), config(k("s0"), k("e0"))} {
			r := newRig(t)
			r.mustReboot(t)
			data := bytes.Repeat([]byte("data"), 1<<20)
			r.replace(t, label, append(data, make([]byte, 17<<20-len(data))...))
			if _, err := r.Apply(t.Context(), []byte(conf), node.Auto); (err == nil) != (label == "EPHEMERAL") {
				t.Errorf("%s: apply: %v", label, err)
			}
			for range 2 {
				r.reboot(t)
				if !bytes.Equal(r.image(t, label)[:len(data)], data) {
					t.Fatalf("%s was wiped or formatted", label)
				}
			}
			if tags := r.metaTags(t); slices.Contains(tags, 194) {
				t.Errorf("%s: META notes a wipe", label)
			}
		}
	}
}

// TestWipeNotStruckOut: as long as META says that a volume is being wiped, nothing
// is put on it.
func TestWipeNotStruckOut(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")))
	n := 0
	r.CutBefore(func(step string) error { // META can be written once only
		if step == "META" {
			n++
		}
		if n > 1 {
			return errCut
		}
		return nil
	})
	if err := r.Reset(t.Context(), k("EPHEMERAL")); !errors.Is(err, errCut) {
		t.Fatalf("reset: %v", err)
	}
	r.CutBefore(nil)
	r.apply(t, config(k("s0"), k("e1")), node.Auto)
	if v := r.volume(t, "EPHEMERAL"); v.Phase == node.VolumeOpen || r.header(t, "EPHEMERAL") != nil {
		t.Errorf("%+v", v)
	}
	r.mustReboot(t)
	r.wantOpen(t, "EPHEMERAL")
	r.write(t, "EPHEMERAL")
	r.mustReboot(t)
	if r.wantOpen(t, "EPHEMERAL"); !r.has(t, "EPHEMERAL") {
		t.Error("it was wiped again")
	}
}

// TestBusy: a volume in use is wiped on the next boot.
func TestBusy(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")))
	r.write(t, "EPHEMERAL")
	r.sys.Hold(r.dir("EPHEMERAL"), "process 7 (kubelet)")
	var busy *mapping.BusyError
	if err := r.Reset(t.Context(), k("EPHEMERAL")); !errors.As(err, &busy) || !strings.Contains(err.Error(), "kubelet") {
		t.Fatal(err)
	}
	if !r.has(t, "EPHEMERAL") {
		t.Error("it was wiped in use")
	}
	r.mustReboot(t)
	if r.wantOpen(t, "EPHEMERAL"); r.has(t, "EPHEMERAL") {
		t.Error("it was not wiped")
	}
}

func TestLockToState(t *testing.T) {
	t.Parallel()
	conf := strings.Replace(config(k("s0"), k("e0")), "    - slot: 0\n      static:\n        passphrase: \"e0\"", "    - slot: 0\n      lockToState: true\n      static:\n        passphrase: \"e0\"", 1)
	r := running(t, conf)
	salt, err := os.ReadFile(filepath.Join(r.dir("STATE"), "encryption-salt.yaml"))
	if err != nil || strings.Count(string(salt), "\n") != 33 {
		t.Fatalf("%v: %d bytes of salt", err, len(salt))
	}
	if r.opensWith(t, "EPHEMERAL", "e0") {
		t.Error("the passphrase alone opens EPHEMERAL")
	}
	r.mustReboot(t)
	r.wantOpen(t, "EPHEMERAL")
	if err := r.Reset(t.Context(), k("STATE")); err == nil || !strings.Contains(err.Error(), "locked to STATE") {
		t.Errorf("wiping the salt: %v", err)
	}
	if err := r.Reset(t.Context(), k("STATE", "EPHEMERAL")); err != nil {
		t.Error(err)
	}
}

// TestReset: labels that must not be wiped.
func TestReset(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")))
	for label, want := range map[string]string{"META": "\"META\" is not a volume", "EFI": "\"EFI\" is not a volume", "u-x": "no partition has the label"} {
		if err := r.Reset(t.Context(), k(label)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", label, err)
		}
	}
	if err := r.Reset(t.Context(), nil); err == nil {
		t.Error("no labels")
	}
	if tags := r.metaTags(t); !slices.Equal(tags, []meta.Tag{9, 192}) {
		t.Errorf("tags in META: %v", tags)
	}
}

// TestRefusals: what a hostile disk shows is named, not mounted and not written.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, r *rig)
		label string // of what must be refused
		says  string
	}{
		{"META points STATE to plaintext", func(t *testing.T, r *rig) {
			r.editMeta(t, func(m *meta.Meta) { m.Set(meta.StateEncryptionConfig, []byte("null")) })
		}, "STATE", "a LUKS2 header"},
		{"META without tag 9, STATE replaced by a plain one", func(t *testing.T, r *rig) {
			r.editMeta(t, func(m *meta.Meta) { m.Delete(meta.StateEncryptionConfig) })
			other := running(t, config(nil, nil))
			r.replace(t, "STATE", other.image(t, "STATE"))
		}, "STATE", "META says that STATE is not encrypted, and it was"},
		{"META's keys open nothing", func(t *testing.T, r *rig) {
			other := running(t, config(k("other"), nil))
			var value []byte
			other.editMeta(t, func(m *meta.Meta) { value, _ = m.Get(meta.StateEncryptionConfig) })
			r.editMeta(t, func(m *meta.Meta) { m.Set(meta.StateEncryptionConfig, value) })
		}, "STATE", "static key of slot 0: rejected"},
		{"another STATE with the same keys", func(t *testing.T, r *rig) {
			r.replace(t, "STATE", running(t, config(k("s0"), k("e0"))).image(t, "STATE"))
		}, "STATE", "not the volume that was formatted here"},
		{"two partitions labelled STATE", func(t *testing.T, r *rig) {
			path, _ := r.sys.Find("STATE")
			r.sys.SetLabel("STATE", path, path+"-2")
		}, "STATE", "several partitions have the label"},
		{"both copies of META damaged", func(t *testing.T, r *rig) {
			path, _ := r.sys.Find("META")
			b := r.image(t, "META")
			b[10] ^= 1
			b[10+256<<10] ^= 1
			os.WriteFile(path, b, 0o600)
		}, "STATE", "META"},
		{"another EPHEMERAL with the same keys", func(t *testing.T, r *rig) {
			r.replace(t, "EPHEMERAL", running(t, config(k("s0"), k("e0"))).image(t, "EPHEMERAL"))
		}, "EPHEMERAL", "not the volume that was formatted here"},
		{"a plain EPHEMERAL, and plain is staged", func(t *testing.T, r *rig) {
			r.mustReboot(t)
			r.apply(t, config(k("s0"), nil), node.Staged)
			r.sys = r.sys.Reboot()
			r.replace(t, "EPHEMERAL", running(t, config(nil, nil)).image(t, "EPHEMERAL"))
		}, "EPHEMERAL", "it is plain, and the encrypted volume"},
		{"a STATE of zeros", func(t *testing.T, r *rig) {
			r.replace(t, "STATE", make([]byte, 17<<20))
			r.opts.Config = []byte(config(k("s0"), k("e0")))
		}, "STATE", "the partition is empty, and volume"},
		{"an EPHEMERAL of zeros", func(t *testing.T, r *rig) {
			r.replace(t, "EPHEMERAL", make([]byte, 17<<20))
		}, "EPHEMERAL", "the partition is empty, and volume"},
		{"a plain EPHEMERAL", func(t *testing.T, r *rig) {
			r.replace(t, "EPHEMERAL", running(t, config(nil, nil)).image(t, "EPHEMERAL"))
		}, "EPHEMERAL", "ext4 superblock"},
		{"NTFS where EPHEMERAL should be", func(t *testing.T, r *rig) {
			b := make([]byte, 17<<20)
			copy(b[3:], "NTFS    ")
			copy(b[510:], "\x55\xaa")
			r.replace(t, "EPHEMERAL", b)
		}, "EPHEMERAL", "NTFS"},
		{"noise where EPHEMERAL should be", func(t *testing.T, r *rig) {
			r.replace(t, "EPHEMERAL", bytes.Repeat([]byte("noise"), 4<<20))
		}, "EPHEMERAL", "holds something else"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := running(t, config(k("s0"), k("e0")))
			r.sys = r.sys.Reboot()
			test.spoil(t, r)
			before := map[string][]byte{}
			for _, label := range []string{"META", "EPHEMERAL"} {
				before[label] = r.image(t, label)
			}
			r.renew()
			err := r.Boot(t.Context())
			if test.label == "STATE" {
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("boot: %v", err)
				}
				r.wantPhase(t, node.Failed)
			} else if err != nil {
				t.Fatal(err)
			} else if v := r.volume(t, test.label); v.Phase != node.VolumeRefused || v.Dir != "" || !strings.Contains(strings.Join(v.Errors, " "), test.says) {
				t.Errorf("%+v", v)
			}
			if calls := r.sys.Calls("Mkfs", "Zero"); len(calls) > 0 {
				t.Errorf("calls %v", calls)
			}
			if on, err := r.sys.Mounted(r.dir(test.label)); on != "" || err != nil {
				t.Errorf("%s is mounted: %v", on, err)
			}
			for label, b := range before {
				if !bytes.Equal(b, r.image(t, label)) {
					t.Errorf("%s was written", label)
				}
			}
		})
	}
}

func (r *rig) replace(t *testing.T, label string, image []byte) {
	t.Helper()
	path, err := r.sys.Find(label)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedCopy: with one good copy of META the node comes up, and says so.
func TestDamagedCopy(t *testing.T) {
	t.Parallel()
	for _, at := range []int{10, 10 + 256<<10} {
		r := running(t, config(k("s0"), k("e0")))
		r.sys = r.sys.Reboot()
		b := r.image(t, "META")
		b[at] ^= 1
		r.replace(t, "META", b)
		r.renew()
		if err := r.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantOpen(t, "STATE", "EPHEMERAL")
		if notices := strings.Join(r.Status().Notices, " "); !strings.Contains(notices, "meta repair") {
			t.Errorf("notices %q", notices)
		}
		if !bytes.Equal(b, r.image(t, "META")) {
			t.Error("META was written")
		}
	}
}

// TestAccept: an operator may take a volume for what it is.
func TestAccept(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")))
	r.write(t, "EPHEMERAL")
	path := filepath.Join(r.dir("STATE"), "cryptctl/identities.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Replace(b, []byte(`"key": "`), []byte(`"key": "00`), 1)
	if err := os.WriteFile(path, other, 0o600); err != nil {
		t.Fatal(err)
	}
	r.mustReboot(t)
	if v := r.volume(t, "EPHEMERAL"); v.Phase != node.VolumeRefused || !strings.Contains(v.Errors[0], "its volume key is another") {
		t.Errorf("%+v", v)
	}
	for _, accept := range [][]string{k("EPHEMERAL"), nil} { // then it is the recorded one
		r.opts.Accept = accept
		r.mustReboot(t)
		if r.wantOpen(t, "EPHEMERAL"); !r.has(t, "EPHEMERAL") {
			t.Error("data lost")
		}
	}
}

// TestStatusLeaksNothing: a status and its errors show no passphrase.
func TestStatusLeaksNothing(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("hunter2-state"), k("hunter2-ephemeral")))
	r.apply(t, config(k("hunter3-state"), k("hunter3-ephemeral")), node.Auto)
	var b bytes.Buffer
	if err := r.Status().WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "hunter") {
		t.Errorf("%s", &b)
	}
	if h := r.header(t, "STATE"); h == nil || len(h.Keyslots()) != 1 {
		t.Error("STATE has other slots")
	}
	var refusal *luks.Refusal
	if errors.As(r.Boot(t.Context()), &refusal) {
		t.Error("booting a running node")
	}
	r.wantOpen(t, "STATE", "EPHEMERAL")
}
