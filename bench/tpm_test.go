package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/cryptctl/cryptctl/tpm"
)

// TestSoftTPM: it is as after a boot, the counter passes and counts what it is
// sent, and what programs leave behind is cleared up.
func TestSoftTPM(t *testing.T) {
	m, err := startTPM(t.Context(), "swtpm", true)
	if err != nil {
		t.Fatal(err)
	}
	defer m.stop()
	c, err := watch(m)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	d, err := tpm.Dial(ours(c.socket()))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		values, err := d.ReadPCRs(t.Context(), "sha256", 7, 11)
		if err != nil {
			t.Fatal(err)
		}
		for pcr, value := range values {
			if !slices.ContainsFunc(value, func(b byte) bool { return b != 0 }) {
				t.Errorf("nothing was measured into PCR %d", pcr)
			}
		}
	}
	if n := c.commands.Load(); n != 3 {
		t.Errorf("%d commands were counted, 3 were sent", n)
	}
	if h, err := m.handles(kept); err != nil || !slices.Equal(h, []tpm2.TPMHandle{rootHandle}) {
		t.Errorf("kept are %x, %v; want the storage root key", h, err)
	}
	leaveBehind(t, m)
	if err := m.flushAll(); err != nil {
		t.Fatal(err)
	}
	if h, err := m.handles(objects, loadedSessions, savedSessions); err != nil || len(h) != 0 {
		t.Errorf("after flushing, loaded are %x, %v", h, err)
	}
	if h, err := m.handles(kept); err != nil || len(h) != 1 {
		t.Errorf("flushing leaves %x kept, %v", h, err)
	}
}

// leaveBehind leaves an object and a session loaded.
func leaveBehind(t *testing.T, m *softTPM) {
	t.Helper()
	dev, err := linuxudstpm.Open(m.socket())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}).Execute(dev); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tpm2.PolicySession(dev, tpm2.TPMAlgSHA256, 16); err != nil {
		t.Fatal(err)
	}
	if h, err := m.handles(objects, loadedSessions); err != nil || len(h) != 2 {
		t.Fatalf("loaded are %x, %v; want an object and a session", h, err)
	}
}

// TestMeantToFail: a command that is meant to fail must fail, and in that way.
func TestMeantToFail(t *testing.T) {
	for _, c := range []struct {
		name, script string
		want         bool
	}{
		{"as it is meant to", "echo is done >&2; exit 1", true},
		{"in another way", "echo is broken >&2; exit 1", false},
		{"not at all", "echo is done >&2", false},
		{"by a signal", "echo is done >&2; kill -9 $$", false},
	} {
		s := command("/bin/sh", "-c", c.script)
		s.fails = "is done"
		if _, err := s.run(t.Context()); (err == nil) != c.want {
			t.Errorf("fails %s: %v", c.name, err)
		}
	}
}

// TestAfterEachStep: what clears up runs behind each step, and its failure counts.
func TestAfterEachStep(t *testing.T) {
	ran := 0
	s := side{steps: [][]string{{"/bin/true"}, {"/bin/true"}}, after: func() error { ran++; return nil }}
	if _, err := s.run(t.Context()); err != nil || ran != 2 {
		t.Errorf("cleared up %d times behind 2 steps, %v", ran, err)
	}
}

// TestTableSaysWhatIsLeftOut: a row that is missing is not taken for one that
// nobody thought of; counts are no times.
func TestTableSaysWhatIsLeftOut(t *testing.T) {
	var out bytes.Buffer
	r := report{
		Rows:    []row{{Case: "counted", Unit: commands, Ours: []float64{16}, Peer: []float64{40}}},
		Skipped: []string{"tpm: the peer is not installed"},
	}
	if err := r.writeTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\ntpm: the peer is not installed\n", "| 16 ", "| 40 "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}
