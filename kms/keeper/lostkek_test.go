package keeper_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/secret"
)

// otherKeyset starts a second keeper on b's store, with a keyset of its own.
func (b *bench) otherKeyset() (*keeper.Keeper, *kek.Keyset) {
	b.t.Helper()
	keys, err := kek.Create(b.t.Context(), filepath.Join(b.t.TempDir(), "kek.json"), kek.Secret{KeyFile: secret.Copy(make([]byte, 32))})
	b.ok(err)
	o := open()
	o.Store, o.KEK, o.Audit, o.Now = b.store, keys, b.log, b.clock
	k, err := keeper.New(b.t.Context(), o)
	b.ok(err)
	b.t.Cleanup(func() { k.Close(); keys.Close() })
	return k, keys
}

// TestLostKEK: a keyset that is not the store's is no secret to who asks how the
// server is, and wraps nothing, until it is said in so many words that the version
// the store needs is lost; then nodes get new keys, and what others wrapped is
// counted.
func TestLostKEK(t *testing.T) {
	b := start(t, open())
	raw := b.sealed(nodeA, "data")
	b.ok(b.CheckKEK(t.Context()))
	if h := b.Health(t.Context()); h.KEK != nil || !h.Answered {
		t.Errorf("the store's own keyset: %+v", h)
	}
	old, err := b.keys.Current(t.Context())
	b.ok(err)
	k, keys := b.otherKeyset()
	lacks := func(what string, err error) {
		t.Helper()
		if e, _ := errors.AsType[*keeper.Error](err); e == nil || e.Reason != keeper.KEKVersion || !errors.Is(err, kek.ErrVersion) {
			t.Errorf("%s: %v", what, err)
		}
	}
	lacks("check", k.CheckKEK(t.Context()))
	lacks("ready", k.Ready(t.Context()))
	missing, err := k.MissingKEK(t.Context())
	if diff := cmp.Diff(map[string]int{old: 1}, missing); diff != "" || err != nil {
		t.Errorf("missing: %v %s", err, diff)
	}
	n, err := k.LostKEK(t.Context(), op, "")
	if n != 1 {
		t.Errorf("%d keys are lost", n)
	}
	lacks("not said which one, and it wraps a key", err)
	if _, err = k.LostKEK(t.Context(), op, "k00000000"); !errors.Is(err, keeper.ErrRefused) {
		t.Errorf("another one: %v", err)
	}
	_, err = k.Seal(t.Context(), from(nodeB), secret.New(8))
	lacks("seal", err)

	n, err = k.LostKEK(t.Context(), op, old)
	if n != 1 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if r := b.recorded(); r.Op != "lost-kek" || r.Outcome != "done" || r.Before != "version="+old || r.After == r.Before || r.Detail != "1 node keys" {
		t.Errorf("on record: %+v", r)
	}
	b.ok(k.CheckKEK(t.Context()))
	_, err = k.Seal(t.Context(), from(nodeB), secret.New(8))
	b.ok(err)
	b.ok(k.Ready(t.Context()))
	got, err := k.Unseal(t.Context(), from(nodeA), raw)
	lacks("what the lost version wrapped", err)
	k.Release(got)
	_, err = k.RotateKey(t.Context(), op, nodeA)
	b.ok(err)
	_, err = k.Seal(t.Context(), from(nodeA), secret.New(8))
	b.ok(err)
	if missing, err = k.MissingKEK(t.Context()); err != nil || !maps.Equal(missing, map[string]int{old: 1}) {
		t.Errorf("missing: %v, %v", missing, err)
	}
	lacks("the former keyset, now", b.CheckKEK(t.Context()))
	if n, err := k.LostKEK(t.Context(), op, old); n != 0 || err != nil {
		t.Errorf("once more: %d, %v", n, err)
	}
	current, err := keys.Current(t.Context())
	b.ok(err)
	if current == old {
		t.Error("two keysets with one version")
	}
}

// TestLostKEKUnused: a version that wraps no key is left without being asked.
func TestLostKEKUnused(t *testing.T) {
	b := start(t, open())
	b.sealed(nodeA, "data")
	b.ok(b.forget(nodeA, nodeA))
	k, _ := b.otherKeyset()
	if k.CheckKEK(t.Context()) == nil {
		t.Fatal("it fits")
	}
	if n, err := k.LostKEK(t.Context(), op, ""); n != 0 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	_, err := k.Seal(t.Context(), from(nodeB), secret.New(8))
	b.ok(err)
}

// TestLostKEKOfLongAgo: a copy of the keyset whose only version was retired since
// wraps by a new one: what was destroyed stays dead.
func TestLostKEKOfLongAgo(t *testing.T) {
	b := start(t, open())
	other, copied, _ := b.copied()
	raw := b.sealed(nodeA, "data")
	old, err := b.keys.Current(t.Context())
	b.ok(err)
	lost, err := b.keys.Rotate(t.Context())
	b.ok(err)
	_, err = b.Rewrap(t.Context(), op, nil)
	b.ok(err)
	b.ok(b.RetireKEK(t.Context(), op, old, b.keys))
	b.opens(nodeA, raw, "data")
	if n, err := other.LostKEK(t.Context(), op, lost); n != 1 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	now, err := copied.Current(t.Context())
	if err != nil || now == old || now == lost {
		t.Errorf("%s wraps, %v", now, err)
	}
	_, err = other.Seal(t.Context(), from(nodeB), secret.New(8))
	b.ok(err)
}

// TestRewrapBesideLost: nodes whose keys are lost, however many, do not keep those of
// others from being rewrapped.
func TestRewrapBesideLost(t *testing.T) {
	b := start(t, open())
	for i := range 20 {
		b.sealed(fmt.Sprintf("00000000-0000-4000-8000-%012d", i), "data")
	}
	lost, err := b.keys.Current(t.Context())
	b.ok(err)
	k, keys := b.otherKeyset()
	if n, err := k.LostKEK(t.Context(), op, lost); n != 20 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	_, err = k.Seal(t.Context(), from("ffffffff-0000-4000-8000-000000000000"), secret.New(8)) // the last one of the list
	b.ok(err)
	_, err = keys.Rotate(t.Context())
	b.ok(err)
	r, err := k.Rewrap(t.Context(), op, nil)
	if diff := cmp.Diff(keeper.Rewrapped{Renewed: 1, Failed: 20}, r); diff != "" || !errors.Is(err, kek.ErrVersion) {
		t.Errorf("%v %s", err, diff)
	}
}

// TestLostKEKNotOnRecord: what cannot be put on record is not done.
func TestLostKEKNotOnRecord(t *testing.T) {
	b := start(t, open())
	b.sealed(nodeA, "data")
	old, err := b.keys.Current(t.Context())
	b.ok(err)
	k, _ := b.otherKeyset()
	b.failing(only("append"))
	if _, err := k.LostKEK(t.Context(), op, old); keeper.CodeOf(err) != keeper.Unavailable {
		t.Errorf("without a record: %v", err)
	}
	b.failing(nil)
	if k.CheckKEK(t.Context()) == nil {
		t.Error("it was done")
	}
}

// TestHealthOfKeyset: a keyset file that is gone is known before a node needs it,
// and again when it is back.
func TestHealthOfKeyset(t *testing.T) {
	b := start(t, open())
	b.sealed(nodeA, "data")
	path := filepath.Join(b.dir, "kek.json")
	b.ok(os.Rename(path, path+".away"))
	if h := b.Health(t.Context()); h.KEK == nil || h.Ready() != nil {
		t.Errorf("without its file: %+v", h) // its keys are in memory
	}
	b.ok(os.Rename(path+".away", path))
	if h := b.Health(t.Context()); h.KEK != nil {
		t.Errorf("with it again: %v", h.KEK)
	}
}

// survey looks at the store with a keyset.
func (b *bench) survey(w kek.Wrapper) *keeper.Survey {
	b.t.Helper()
	s := keeper.NewSurvey(w)
	for item, err := range b.store.List(b.t.Context(), "") {
		b.ok(err)
		b.ok(s.Take(b.t.Context(), item))
	}
	return s
}

// TestSurvey: each key is tried, those of another keyset are lost, and a record that
// was moved to another node's name is found.
func TestSurvey(t *testing.T) {
	b := start(t, open())
	b.sealed(nodeA, "data")
	b.sealed(nodeB, "data")
	_, err := b.RotateKey(t.Context(), op, nodeA)
	b.ok(err)
	b.ok(b.Revoke(t.Context(), op, nodeC))
	current, err := b.keys.Current(t.Context())
	b.ok(err)
	s := b.survey(b.keys)
	want := []keeper.Opening{{Version: current, Keys: 3, Tried: 3, Opened: 3}}
	if diff := cmp.Diff(want, s.Openings()); diff != "" || s.Current != current || s.Keys != 3 || len(s.Lost()) != 0 {
		t.Errorf("%+v\n%s", s, diff)
	}
	if diff := cmp.Diff(map[policy.State]int{policy.Approved: 2, policy.Revoked: 1}, s.Nodes); diff != "" {
		t.Error(diff)
	}
	_, other := b.otherKeyset()
	s = b.survey(other)
	if diff := cmp.Diff([]blob.Node{nodeB, nodeA}, s.Lost()); diff != "" {
		t.Error(diff)
	}
	if o := s.Openings(); len(o) != 1 || o[0].Opened != 0 || o[0].Tried != 3 || !errors.Is(o[0].Err, kek.ErrVersion) {
		t.Errorf("%+v", o)
	}
	if o := b.survey(nil).Openings(); len(o) != 1 || o[0].Tried != 0 || o[0].Keys != 3 {
		t.Errorf("nothing to try with: %+v", o)
	}
	a, err := b.store.Get(t.Context(), "node/"+nodeA, 0)
	b.ok(err)
	was, err := b.store.Get(t.Context(), "node/"+nodeB, 0)
	b.ok(err)
	_, err = b.store.Swap(t.Context(), "node/"+nodeB, was.Revision, a.Value)
	b.ok(err)
	if diff := cmp.Diff([]blob.Node{nodeB}, b.survey(b.keys).Lost()); diff != "" {
		t.Errorf("another node's record: %s", diff)
	}
}

// fullDisk is an audit log whose disk is full.
type fullDisk struct {
	*countedAudit
	err func() error
}

// Err implements what the keeper looks for.
func (f fullDisk) Err() error { return f.err() }

// Probe implements what the keeper looks for.
func (f fullDisk) Probe() error { return f.err() }

// Append implements keeper.Recorder.
func (f fullDisk) Append(e audit.Event) error {
	if err := f.err(); err != nil {
		return err
	}
	return f.countedAudit.Append(e)
}

// TestReadyNeedsAudit: a server that cannot write its log is not ready.
func TestReadyNeedsAudit(t *testing.T) {
	b := start(t, open())
	full := errPlanned
	o := open()
	o.Store, o.KEK, o.Now = b.store, b.keys, b.clock
	o.Audit = fullDisk{b.log, func() error { return full }}
	k, err := keeper.New(t.Context(), o)
	b.ok(err)
	defer k.Close()
	if err := k.Ready(t.Context()); keeper.CodeOf(err) != keeper.Unavailable || !errors.Is(err, errPlanned) {
		t.Errorf("full: %v", err)
	}
}
