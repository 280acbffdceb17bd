package keeper_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/secret"
)

// copied starts a second server on b's store, with a copy of its keyset file.
// again copies it anew.
func (b *bench) copied() (other *keeper.Keeper, keys *kek.Keyset, again func()) {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), "kek.json")
	again = func() {
		b.t.Helper()
		text, err := os.ReadFile(filepath.Join(b.dir, "kek.json"))
		b.ok(err)
		b.ok(os.WriteFile(path+".new", text, 0o600))
		b.ok(os.Rename(path+".new", path))
	}
	again()
	keys, err := kek.Open(b.t.Context(), path, kek.Secret{KeyFile: secret.Copy(make([]byte, 32))})
	b.ok(err)
	o := open()
	o.Store, o.KEK, o.Audit, o.Now = b.store, keys, b.log, b.clock
	other, err = keeper.New(b.t.Context(), o)
	b.ok(err)
	b.t.Cleanup(func() { other.Close(); keys.Close() })
	return other, keys, again
}

// TestKeysetCopies: two servers, each with its own copy of the keyset file. One that
// is behind after a rotation wraps nothing that the other could not unwrap, and a
// version that was retired unwraps nothing, wherever a copy of it is left.
func TestKeysetCopies(t *testing.T) {
	b := start(t, open())
	first := b.sealed(nodeA, "one")
	other, behind, again := b.copied()
	lacks := func(what string, err error) {
		t.Helper()
		if e, _ := errors.AsType[*keeper.Error](err); e == nil || e.Reason != keeper.KEKVersion || !errors.Is(err, kek.ErrVersion) {
			t.Errorf("%s: %v", what, err)
		}
	}
	old, err := b.keys.Current(t.Context())
	b.ok(err)
	_, err = b.keys.Rotate(t.Context())
	b.ok(err)
	b.sealed(nodeC, "wrapped by the new version")
	_, err = other.Seal(t.Context(), from(nodeB), secret.New(8))
	lacks("a new node at the one behind", err)
	if err == nil || !strings.Contains(err.Error(), "copy the keyset file") {
		t.Errorf("what to do is not said: %v", err)
	}
	_, err = other.RotateKey(t.Context(), op, nodeA)
	lacks("another key at the one behind", err)
	_, err = other.Rewrap(t.Context(), op, nil)
	lacks("a rewrap at the one behind", err)
	lacks("a retirement at the one behind", other.RetireKEK(t.Context(), op, "k00000000", behind))

	again()
	raw, err := other.Seal(t.Context(), from(nodeB), secret.Copy([]byte("two")))
	b.ok(err)
	b.opens(nodeB, raw, "two")
	before, err := b.store.Get(t.Context(), "node/"+nodeA, 0)
	b.ok(err)
	_, err = b.Rewrap(t.Context(), op, nil)
	b.ok(err)
	b.ok(b.RetireKEK(t.Context(), op, old, b.keys))
	b.opens(nodeA, first, "one")
	// The one behind still has what was retired, and a record of before comes back.
	v, err := behind.Versions()
	if err != nil || v[0].Name != old || !v[0].Enabled {
		t.Fatalf("%+v, %v", v, err)
	}
	now, err := b.store.Get(t.Context(), "node/"+nodeA, 0)
	b.ok(err)
	_, err = b.store.Swap(t.Context(), "node/"+nodeA, now.Revision, before.Value)
	b.ok(err)
	got, err := other.Unseal(t.Context(), from(nodeA), first)
	lacks("a retired version, at the one that still has it", err)
	other.Release(got)
}

// TestRetiredElsewhere has a server with a copy of the keyset wrap a key, while
// another server retires the version that it is wrapped by and had not counted it.
// No blob leaves that opens at one of them only.
func TestRetiredElsewhere(t *testing.T) {
	for _, at := range []string{"disable", "destroy"} {
		b := start(t, open())
		_, copied, _ := b.copied()
		h := hold()
		o := open()
		o.Store, o.KEK, o.Audit, o.Now = b.store, heldKEK{copied, h}, b.log, b.clock
		slow, err := keeper.New(t.Context(), o)
		b.ok(err)
		old, err := b.keys.Current(t.Context())
		b.ok(err)
		type result struct {
			raw []byte
			err error
		}
		sealed := make(chan result)
		go func() {
			raw, err := slow.Seal(t.Context(), from(nodeA), secret.Copy([]byte("data")))
			sealed <- result{raw, err}
		}()
		<-h.in // it has wrapped and proven, and not stored
		_, err = b.keys.Rotate(t.Context())
		b.ok(err)
		var r result
		goOn := func(now bool) func() {
			return func() {
				if now {
					close(h.goOn)
					r = <-sealed
				}
			}
		}
		err = b.RetireKEK(t.Context(), op, old, hooked{b.keys, goOn(at == "disable"), goOn(at == "destroy")})
		switch at {
		case "disable":
			if !errors.Is(err, keeper.ErrRefused) || r.err != nil {
				t.Fatalf("%s: retire %v, seal %v", at, err, r.err)
			}
			b.opens(nodeA, r.raw, "data")
		case "destroy":
			if err != nil || r.raw != nil || !errors.Is(r.err, kek.ErrVersion) {
				t.Fatalf("%s: retire %v, seal %v", at, err, r.err)
			}
		}
		slow.Close()
	}
}
