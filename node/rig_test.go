package node_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/meta"
	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/provide"
	"github.com/cryptctl/cryptctl/volume/volumetest"
)

const nodeUUID = "6f7a8b9c-0d1e-4f2a-8b3c-4d5e6f7a8b9c"

// rig is a machine that is booted again and again.
type rig struct {
	sys  *volumetest.System
	root string
	opts node.Options
	*node.Node
}

// newRig is a machine with blank partitions, not booted.
func newRig(t testing.TB, users ...string) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{sys: volumetest.New(t, dir), root: filepath.Join(dir, "root")}
	r.sys.AddPartition("META", meta.Size)
	for _, label := range append([]string{"STATE", "EPHEMERAL"}, users...) {
		r.sys.AddPartition(label, 17<<20)
	}
	r.opts = node.Options{Root: r.root, Machine: provide.Machine{UUID: nodeUUID, KMS: kms.Options{Budget: 100 * time.Millisecond}}, Keys: keys.Options{Cost: kdf.Light()}, TryTimeout: time.Hour}
	r.renew()
	return r
}

// renew forgets the node as a reboot does.
func (r *rig) renew() {
	if r.Node != nil {
		r.Abandon()
	}
	opts := r.opts
	opts.System = r.sys
	r.Node = node.New(opts)
}

// reboot cuts the power and boots.
func (r *rig) reboot(t testing.TB) error {
	t.Helper()
	r.sys = r.sys.Reboot()
	r.renew()
	return r.Boot(t.Context())
}

func (r *rig) mustReboot(t testing.TB) {
	t.Helper()
	if err := r.reboot(t); err != nil {
		t.Fatalf("boot: %v", err)
	}
}

func (r *rig) apply(t testing.TB, config string, mode node.Mode) *node.Applied {
	t.Helper()
	a, err := r.Apply(t.Context(), []byte(config), mode)
	if err != nil {
		t.Fatalf("apply in mode %s: %v", mode, err)
	}
	return a
}

// running boots a blank machine with a configuration.
func running(t testing.TB, config string, users ...string) *rig {
	t.Helper()
	r := newRig(t, users...)
	r.mustReboot(t)
	r.apply(t, config, node.Auto)
	r.wantPhase(t, node.Running)
	return r
}

func (r *rig) wantPhase(t testing.TB, want node.Phase) {
	t.Helper()
	if s := r.Status(); s.Phase != want {
		t.Fatalf("phase %s (%s), want %s", s.Phase, s.Reason, want)
	}
}

func (r *rig) volume(t testing.TB, name string) node.VolumeStatus {
	t.Helper()
	s := r.Status()
	at := slices.IndexFunc(s.Volumes, func(v node.VolumeStatus) bool { return v.Name == name })
	if at < 0 {
		t.Fatalf("no volume %s in %+v", name, s)
	}
	return s.Volumes[at]
}

// wantOpen checks that volumes are open and in step.
func (r *rig) wantOpen(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if v := r.volume(t, name); v.Phase != node.VolumeOpen || len(v.Errors) > 0 {
			t.Errorf("%s is %s: %v", name, v.Phase, v.Errors)
		}
	}
}

func (r *rig) dir(name string) string {
	return filepath.Join(r.root, map[string]string{"STATE": "system/state", "EPHEMERAL": "var"}[name])
}

func (r *rig) write(t testing.TB, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir(name), "data"), []byte("of "+name), 0o600); err != nil {
		t.Fatal(err)
	}
}

// has reports whether the volume still holds what write wrote.
func (r *rig) has(t testing.TB, name string) bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir(name), "data"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b) == "of "+name
}

// image returns a partition's bytes.
func (r *rig) image(t testing.TB, label string) []byte {
	t.Helper()
	path, err := r.sys.Find(label)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// header reads a volume's header, nil when there is none.
func (r *rig) header(t testing.TB, label string) *luks.Header {
	t.Helper()
	path, err := r.sys.Find(label)
	if err != nil {
		t.Fatal(err)
	}
	f, err := luks.OpenFile(path, luks.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	h, err := luks.Read(f)
	if errors.Is(err, luks.NotLUKS) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// editMeta changes META behind the node's back.
func (r *rig) editMeta(t testing.TB, change func(*meta.Meta)) {
	t.Helper()
	path, err := r.sys.Find("META")
	if err != nil {
		t.Fatal(err)
	}
	f, err := luks.OpenFile(path, luks.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := meta.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	change(m)
	if err := m.Commit(); err != nil {
		t.Fatal(err)
	}
}

// metaTags returns the tags in META.
func (r *rig) metaTags(t testing.TB) (tags []meta.Tag) {
	t.Helper()
	r.editMeta(t, func(m *meta.Meta) { tags = m.Tags() })
	return tags
}

// config is a machine configuration: the keys of each encrypted volume, one
// passphrase for each slot from 0 on. Users are declared beside.
func config(state, ephemeral []string, users ...string) string {
	var b strings.Builder
	b.WriteString("version: v1alpha1\nmachine:\n  type: worker\n")
	for _, v := range []struct {
		name string
		keys []string
	}{{"STATE", state}, {"EPHEMERAL", ephemeral}} {
		if len(v.keys) > 0 {
			fmt.Fprintf(&b, "---\napiVersion: v1alpha1\nkind: VolumeConfig\nname: %s\n%s", v.name, encryption(v.keys))
		}
	}
	for _, u := range users {
		fmt.Fprintf(&b, "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: %s\n%s", u, encryption([]string{"of " + u}))
	}
	return b.String()
}

func encryption(keys []string) string {
	var b strings.Builder
	b.WriteString("encryption:\n  provider: luks2\n  keys:\n")
	for slot, k := range keys {
		fmt.Fprintf(&b, "    - slot: %d\n      static:\n        passphrase: %q\n", slot, k)
	}
	return b.String()
}

func k(keys ...string) []string { return keys }

// opensWith reports whether a passphrase opens a volume.
func (r *rig) opensWith(t testing.TB, label, passphrase string) bool {
	t.Helper()
	h := r.header(t, label)
	if h == nil {
		return false
	}
	key, err := h.Unlock(context.Background(), secretOf(passphrase), luks.UnlockOptions{})
	key.Wipe()
	return err == nil
}
