package node_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/node"
)

// waits fails unless the status shows just this as pending of a volume.
func (r *rig) waits(t *testing.T, when, name string, want ...string) {
	t.Helper()
	if got := r.volume(t, name).Pending; !slices.Equal(got, want) {
		t.Errorf("%s: pending of %s: %q, want %q", when, name, got, want)
	}
}

// TestPending: what is staged is shown until the next boot, whatever happens before.
func TestPending(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")), "u-data")
	staged := func(when string) {
		t.Helper()
		r.waits(t, when, "STATE")
		r.waits(t, when, "EPHEMERAL", "keys (next boot)")
		r.waits(t, when, "u-data", "a new volume (next boot)")
		if v := r.volume(t, "u-data"); v.Phase != node.VolumeStaged {
			t.Errorf("%s: %+v", when, v)
		}
	}
	r.apply(t, config(k("s0"), k("e1"), "data"), node.Staged)
	staged("staged")
	var table bytes.Buffer
	if err := r.Status().WriteTable(&table); err != nil || !strings.Contains(table.String(), "u-data: pending: a new volume (next boot)") {
		t.Errorf("%v\n%s", err, &table)
	}
	if err := r.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	staged("booted again")
	if _, err := r.Try(t.Context(), []byte(config(k("s2"), k("e2"))), time.Second); err != nil {
		t.Fatal(err)
	}
	staged("with others on trial")
	r.takenBack(t)
	staged("after the trial")
	r.apply(t, config(k("s0"), k("e0")), node.Staged)
	r.waits(t, "staged as it is", "EPHEMERAL")
	if at := slices.IndexFunc(r.Status().Volumes, func(v node.VolumeStatus) bool { return v.Name == "u-data" }); at >= 0 {
		t.Errorf("a volume that is not staged any more is shown: %+v", r.Status().Volumes[at])
	}
	r.apply(t, config(k("s0"), k("e1"), "data"), node.Staged)
	r.mustReboot(t)
	r.wantOpen(t, "STATE", "EPHEMERAL", "u-data")
	for _, name := range k("STATE", "EPHEMERAL", "u-data") {
		r.waits(t, "booted", name)
	}
}

// TestTrialAddsVolume: a volume that only a trial had stays open, and that is shown.
// Its data is there for who declares it.
func TestTrialAddsVolume(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")), "u-data")
	with := config(k("s0"), k("e0"), "data")
	if _, err := r.Try(t.Context(), []byte(with), time.Second); err != nil {
		t.Fatal(err)
	}
	r.wantOpen(t, "u-data")
	before := r.header(t, "u-data").UUID()
	r.takenBack(t)
	r.waits(t, "taken back", "u-data", "no longer declared: it stays open until then (next boot)")
	r.mustReboot(t)
	if at := slices.IndexFunc(r.Status().Volumes, func(v node.VolumeStatus) bool { return v.Name == "u-data" }); at >= 0 {
		t.Errorf("%+v", r.Status().Volumes[at])
	}
	r.apply(t, strings.Replace(with, "of data", "another", 1), node.Auto)
	r.wantOpen(t, "u-data")
	if r.header(t, "u-data").UUID() != before || !r.opensWith(t, "u-data", "another") {
		t.Error("the volume of the trial is lost")
	}
}

// TestPendingBehindLatch: what waits for the TPM's latch to open is shown until the
// next boot.
func TestPendingBehindLatch(t *testing.T) {
	t.Parallel()
	m := installed(t, config(k("s0"), k("e0")))
	m.boots(t)
	m.apply(t, sealedConfig("", "p0"), node.Auto)
	for _, name := range bothVolumes {
		m.waits(t, "behind the latch", name, "keys: a key that the TPM seals before its latch closes (next boot)")
	}
	m.boots(t)
	for _, name := range bothVolumes {
		m.waits(t, "after the boot", name)
	}
	m.wantOpen(t, bothVolumes...)
}
