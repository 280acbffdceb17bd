package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/meta"
	"github.com/cryptctl/cryptctl/node"
)

// keyServer is a key server that behaves as it is told.
type keyServer struct {
	wire.UnimplementedKMSServiceServer
	endpoint string

	mu     sync.Mutex
	sealed map[string][]byte
	how    behaviour
	turned chan struct{} // closed when it behaves otherwise
	asked  chan struct{} // gets one for each call, if there is room
}

type behaviour int

const (
	answers behaviour = iota
	silent            // until it behaves otherwise
	denies
	answersJunk
)

func newKeyServer(t *testing.T, options ...grpc.ServerOption) *keyServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &keyServer{endpoint: "grpc://" + l.Addr().String(), sealed: map[string][]byte{}, turned: make(chan struct{})}
	g := grpc.NewServer(options...)
	wire.RegisterKMSServiceServer(g, s)
	go g.Serve(l)
	t.Cleanup(g.Stop)
	return s
}

func (s *keyServer) turn(how behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.how = how
	close(s.turned)
	s.turned = make(chan struct{})
}

// may waits while the server is silent.
func (s *keyServer) may(ctx context.Context) (junk bool, err error) {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	for {
		s.mu.Lock()
		how, turned := s.how, s.turned
		s.mu.Unlock()
		switch how {
		case answers, answersJunk:
			return how == answersJunk, nil
		case denies:
			return false, status.Error(codes.PermissionDenied, "revoked")
		}
		select {
		case <-turned:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

func (s *keyServer) Seal(ctx context.Context, r *wire.Request) (*wire.Response, error) {
	if _, err := s.may(ctx); err != nil {
		return nil, err
	}
	blob := make([]byte, 40)
	rand.Read(blob)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed[string(blob)] = bytes.Clone(r.GetData())
	return &wire.Response{Data: blob}, nil
}

func (s *keyServer) Unseal(ctx context.Context, r *wire.Request) (*wire.Response, error) {
	junk, err := s.may(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	data := bytes.Clone(s.sealed[string(r.GetData())])
	if junk {
		rand.Read(data)
	}
	return &wire.Response{Data: data}, nil
}

// served adds a kms key in slot 5 to both volumes of a configuration of documents.
func (s *keyServer) served(config string) string {
	key := fmt.Sprintf("    - slot: 5\n      kms: {endpoint: %q}\n", s.endpoint)
	docs := strings.SplitAfter(config+"---\n", "---\n")
	for i, doc := range docs {
		if strings.Contains(doc, "kind: VolumeConfig") {
			docs[i] = strings.TrimSuffix(doc, "---\n") + key + "---\n"
		}
	}
	return strings.TrimSuffix(strings.Join(docs, ""), "---\n")
}

// patient has kms keys wait for an hour: in these tests a boot that waits for a
// silent server does not end.
func (r *rig) patient() {
	r.opts.Machine.KMS = kms.Options{Budget: time.Hour, CallTimeout: time.Hour}
	r.renew()
}

var bothVolumes = []string{"STATE", "EPHEMERAL"}

// asking fails unless the key servers of both volumes are still asked, and nothing
// else is wrong.
func (r *rig) asking(t *testing.T) {
	t.Helper()
	r.wantPhase(t, node.Running)
	for _, name := range bothVolumes {
		v := r.volume(t, name)
		if !slices.Equal(v.Asking, []int{5}) || len(v.Errors) > 0 || v.Phase != node.VolumeOpen {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// settled waits until no key server is asked any more.
func (r *rig) settled(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if len(r.volume(t, "STATE").Asking)+len(r.volume(t, "EPHEMERAL").Asking) == 0 {
			r.Abandon() // which waits for the end of it
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("key servers are asked for ever")
		}
	}
}

// slot fails unless that became of a slot of both volumes, for a reason with these
// words.
func (r *rig) slot(t *testing.T, slot int, want keys.Outcome, words string) {
	t.Helper()
	for _, name := range bothVolumes {
		slots := r.volume(t, name).Slots
		at := slices.IndexFunc(slots, func(r keys.Result) bool { return r.Slot == slot })
		if at < 0 || slots[at].Outcome != want || !strings.Contains(slots[at].Reason, words) {
			t.Errorf("%s: %+v, want slot %d %s with %q", name, slots, slot, want, words)
		}
	}
}

// sums tell whether the slots of kms keys are as they were.
func (r *rig) sums(t *testing.T) (all []string) {
	t.Helper()
	for _, name := range bothVolumes {
		h := r.header(t, name)
		sum, err := h.KeyslotSum(5)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		all = append(all, fmt.Sprintf("%x %s", sum, keys.TokenOf(h, 5)))
	}
	return all
}

// forgotten fails when META or STATE still has former keys.
func (r *rig) forgotten(t *testing.T) {
	t.Helper()
	if tags := r.metaTags(t); !slices.Equal(tags, []meta.Tag{9, 192}) {
		t.Errorf("tags in META: %v", tags)
	}
	if left, _ := filepath.Glob(filepath.Join(r.dir("STATE"), "cryptctl/former/*")); len(left) > 0 {
		t.Errorf("former configurations left: %q", left)
	}
}

// TestSilentServer: a key server that never answers does not hold up the boot, nor
// what is asked of the node afterwards; when it answers, the slots are seen to.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t)
	r := newRig(t, "u-data")
	r.patient()
	r.mustReboot(t)
	conf := s.served(config(k("s0"), k("e0"), "data"))
	if a := r.apply(t, conf, node.Auto); len(a.Status.Volumes[0].Asking) > 0 {
		t.Errorf("Apply does not wait: %+v", a.Status.Volumes)
	}
	r.wantOpen(t, "STATE", "EPHEMERAL", "u-data")
	before := r.sums(t)

	s.turn(silent)
	r.mustReboot(t)
	r.asking(t)
	if err := r.Reset(t.Context(), k("u-data")); err != nil {
		t.Error(err)
	}
	r.asking(t)
	s.turn(answers)
	r.settled(t)
	r.wantOpen(t, "STATE", "EPHEMERAL")
	r.slot(t, 5, keys.Kept, "opens")
	if !slices.Equal(before, r.sums(t)) {
		t.Error("the slots of the kms keys are others")
	}
	s.turn(silent)
	r.mustReboot(t)
	if err := r.Close(t.Context()); err != nil {
		t.Errorf("closing while servers are asked: %v", err)
	}
	if calls := r.sys.Calls("Deactivate"); len(calls) == 0 {
		t.Error("nothing was closed")
	}
}

// TestLatchBeforeServer: where slots have to be seen to before the latch closes, a
// silent key server does not hold that up. What it takes to bring its keys in step
// stays at hand behind the latch.
func TestLatchBeforeServer(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t)
	m := installed(t, sealedConfig(""))
	m.opts.Machine.KMS = kms.Options{Budget: time.Hour, CallTimeout: time.Hour}
	m.apply(t, s.served(sealedConfig("", "recovery")), node.Staged)
	for _, boot := range []struct {
		name, firmware string
		sealed, served keys.Outcome
	}{
		{"the kms key is new", m.firmware, keys.Kept, keys.Added},
		{"nothing is", m.firmware, keys.Kept, keys.Kept},
		{"the TPM's key is stale", "another", keys.Replaced, keys.Kept},
	} {
		m.firmware = boot.firmware
		s.turn(silent)
		m.boots(t)
		m.asking(t)
		if !m.latched(t) || !m.Status().Latched {
			t.Errorf("%s: the latch is open", boot.name)
		}
		s.turn(answers)
		m.settled(t)
		m.wantOpen(t, bothVolumes...)
		m.slot(t, 0, boot.sealed, "")
		m.slot(t, 5, boot.served, "")
		m.forgotten(t)
		if boot.served == keys.Added {
			m.apply(t, s.served(sealedConfig("reseal: true", "recovery")), node.Staged)
		}
	}
}

// TestDeadServer: what a server that cannot be reached means for its slots: they
// stay, that is said, and the next time they are seen to.
func TestDeadServer(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t)
	m := installed(t, s.served(sealedConfig("", "recovery")))
	before := m.sums(t)
	m.opts.Machine.KMS = kms.Options{Budget: 100 * time.Millisecond}
	s.turn(silent)
	m.boots(t)
	m.settled(t)
	m.slot(t, 5, keys.WasBlocked, "could not be checked: ")
	for _, name := range bothVolumes {
		if v := m.volume(t, name); len(v.Errors) != 1 || !strings.HasPrefix(v.Errors[0], "slot 5: ") {
			t.Errorf("%s: %q", name, v.Errors)
		}
	}
	if err := m.Boot(t.Context()); err != nil {
		t.Error(err)
	}
	m.slot(t, 5, keys.WasBlocked, "could not be checked: ")
	s.turn(answers)
	if err := m.Boot(t.Context()); err != nil {
		t.Error(err)
	}
	m.wantOpen(t, bothVolumes...) // the TPM's key was in step in this boot
	m.slot(t, 5, keys.Kept, "opens")
	if !slices.Equal(before, m.sums(t)) {
		t.Error("the slots of the kms keys are others")
	}
}

// TestRefusingServer: no answer of a key server makes a slot go, or another key
// fail.
func TestRefusingServer(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t)
	conf := s.served(config(k("s0"), k("e0")))
	r := running(t, conf)
	r.patient()
	before := r.sums(t)
	for how, words := range map[behaviour]string{denies: "denied", answersJunk: "does not open the slot, which stays"} {
		s.turn(how)
		r.mustReboot(t)
		r.settled(t)
		r.slot(t, 0, keys.Kept, "opens")
		r.slot(t, 5, keys.WasBlocked, words)
		s.turn(answers)
		if err := r.Boot(t.Context()); err != nil {
			t.Error(err)
		}
		r.wantOpen(t, bothVolumes...)
		r.slot(t, 5, keys.Kept, "opens")
	}
	if !slices.Equal(before, r.sums(t)) {
		t.Error("the slots of the kms keys are others")
	}
}

// TestFormerBeforeServer: all keys change, one of the new ones is a silent server's:
// the boot opens by those before, and does not wait.
func TestFormerBeforeServer(t *testing.T) {
	t.Parallel()
	for _, others := range []struct{ state, ephemeral []string }{{k("S0"), k("E0")}, {nil, nil}} {
		s := newKeyServer(t)
		r := running(t, config(k("s0"), k("e0")))
		r.patient()
		s.turn(silent)
		conf := strings.ReplaceAll(config(k("-"), k("-")), "    - slot: 0\n      static:\n        passphrase: \"-\"\n", "")
		if others.state != nil {
			conf = config(others.state, others.ephemeral)
		}
		r.mustReboot(t)
		r.apply(t, s.served(conf), node.Staged)
		r.mustReboot(t)
		r.wantPhase(t, node.Running)
		if v := r.volume(t, "EPHEMERAL"); !slices.Equal(v.Asking, []int{5}) {
			t.Errorf("%+v", v)
		}
		s.turn(answers)
		r.settled(t)
		r.wantOpen(t, bothVolumes...)
		r.slot(t, 5, keys.Added, "")
		r.forgotten(t)
		if r.opensWith(t, "STATE", "s0") || r.opensWith(t, "EPHEMERAL", "e0") {
			t.Error("a former key opens")
		}
	}
}

// TestCutWhileAsking: the power fails before or after the server answers.
func TestCutWhileAsking(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t)
	r := running(t, config(k("s0"), k("e0")))
	r.patient()
	r.mustReboot(t)
	r.apply(t, s.served(config(k("S0"), k("e0"))), node.Staged)
	for range 2 {
		s.turn(silent)
		r.mustReboot(t)
		r.asking(t)
	}
	r.sys = r.sys.Reboot() // what the one before has open is gone
	s.turn(answers)
	r.renew()
	if err := r.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Finish(t.Context())
	r.wantOpen(t, bothVolumes...)
	r.slot(t, 5, keys.Added, "")
	r.forgotten(t)
}

// TestApplyWhileAsking: another configuration ends what was asked for the one
// before.
func TestApplyWhileAsking(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t)
	r := running(t, s.served(config(k("s0"), k("e0"))))
	r.patient()
	s.turn(silent)
	r.mustReboot(t)
	r.asking(t)
	for _, conf := range []string{config(k("S0"), k("E0")), config(k("S0"), k("E1"))} {
		r.apply(t, conf, node.NoReboot)
		r.wantOpen(t, bothVolumes...)
		for _, name := range bothVolumes {
			if v := r.volume(t, name); len(v.Asking) > 0 || len(r.header(t, name).Keyslots()) != 1 {
				t.Errorf("%s: %+v", name, v)
			}
		}
		s.turn(answers)
		r.settled(t)
		r.forgotten(t)
	}
}

// TestWaitsWhileAsking: so does one whose keys wait for the next boot.
func TestWaitsWhileAsking(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t)
	m := installed(t, s.served(sealedConfig("", "recovery")))
	m.opts.Machine.KMS = kms.Options{Budget: time.Hour, CallTimeout: time.Hour}
	s.turn(silent)
	m.boots(t)
	m.asking(t)
	if a := m.apply(t, s.served(sealedConfig("options: {pcrs: [0, 7]}", "recovery")), node.Auto); !a.Reboot {
		t.Errorf("%+v", a)
	}
	for _, name := range bothVolumes {
		if v := m.volume(t, name); len(v.Asking) > 0 || v.Phase != node.VolumeOpen {
			t.Errorf("%s: %+v", name, v)
		}
	}
}
