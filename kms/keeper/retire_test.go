package keeper_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/secret"
)

// slowKEK stops after its first Unwrap, which proves what was wrapped, as a server
// may that is slow to store it.
type slowKEK struct {
	*kek.Keyset
	once          *sync.Once
	wrapped, goOn chan struct{}
}

func (s slowKEK) Unwrap(ctx context.Context, wrapped, bound []byte) (*secret.Bytes, error) {
	out, err := s.Keyset.Unwrap(ctx, wrapped, bound)
	s.once.Do(func() {
		s.wrapped <- struct{}{}
		<-s.goOn
	})
	return out, err
}

// hooked lets a test do something at a step of a retirement.
type hooked struct {
	*kek.Keyset
	disable, destroy func()
}

func (h hooked) Disable(v string) error { h.disable(); return h.Keyset.Disable(v) }
func (h hooked) Destroy(v string) error { h.destroy(); return h.Keyset.Destroy(v) }

// TestRetireKEKUnderASlowServer has a first seal under way whose key was wrapped
// by the version that is destroyed meanwhile. Either the retirement is refused,
// or the seal is: a blob that was given out opens.
func TestRetireKEKUnderASlowServer(t *testing.T) {
	for _, at := range []string{"disable", "destroy"} {
		b := start(t, open())
		slow := slowKEK{b.keys, &sync.Once{}, make(chan struct{}), make(chan struct{})}
		server, err := keeper.New(t.Context(), keeper.Options{Store: b.store, KEK: slow, Audit: b.log, Rules: open().Rules, Now: b.clock})
		b.ok(err)
		old, err := b.keys.Current(t.Context())
		b.ok(err)
		var raw []byte
		sealed := make(chan error)
		go func() {
			var err error
			raw, err = server.Seal(t.Context(), from(nodeA), secret.Copy([]byte("data")))
			sealed <- err
		}()
		<-slow.wrapped
		_, err = b.keys.Rotate(t.Context())
		b.ok(err)
		var sealErr error
		resume := func(now bool) func() {
			return func() {
				if now {
					close(slow.goOn)
					sealErr = <-sealed
				}
			}
		}
		err = b.RetireKEK(t.Context(), op, old, hooked{b.keys, resume(at == "disable"), resume(at == "destroy")})
		if at == "disable" {
			if !errors.Is(err, keeper.ErrRefused) || sealErr != nil {
				t.Fatalf("%s: retire %v, seal %v", at, err, sealErr)
			}
			b.opens(nodeA, raw, "data")
		} else {
			if err != nil || keeper.CodeOf(sealErr) != keeper.Unavailable || !errors.Is(sealErr, kek.ErrVersion) || raw != nil {
				t.Fatalf("%s: retire %v, seal %v", at, err, sealErr)
			}
			_, err = b.RotateKey(t.Context(), op, nodeA) // what helps the node
			b.ok(err)
			b.opens(nodeA, b.sealed(nodeA, "anew"), "anew")
		}
		server.Close()
		b.stop()
	}
}
