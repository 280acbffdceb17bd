package keeper_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"sync"
	"testing"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/secret"
)

const volumeKey = "0123456789abcdef0123456789ABCDEF"

// reference makes blobs as the reference server does, under a key of its own.
func reference(t testing.TB) (seal func(data string) []byte, with func(keeper.Options) keeper.Options) {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return func(data string) []byte { return aead.Seal(nil, nil, []byte(data), nil) }, func(o keeper.Options) keeper.Options {
		r, err := blob.NewReference(secret.Copy(key))
		if err != nil {
			t.Fatal(err)
		}
		o.Import = r
		return o
	}
}

func TestImport(t *testing.T) {
	seal, with := reference(t)
	state, ephemeral := seal(volumeKey), seal("ephemeral's key, also of 32 byte")
	b := start(t, with(open()))
	b.opens(nodeA, state, volumeKey) // registers
	b.opens(nodeA, state, volumeKey)
	b.opens(nodeA, ephemeral, "ephemeral's key, also of 32 byte")
	b.refused(nodeB, state, keeper.Denied, policy.UnknownNode)
	b.sealed(nodeB, "now it is known")
	b.refused(nodeB, state, keeper.Denied, keeper.Imported)
	forged := append([]byte(nil), state...)
	forged[30] ^= 1
	b.refused(nodeA, forged, keeper.Denied, keeper.NotAuthentic)
	b.refused(nodeC, forged, keeper.Denied, policy.UnknownNode)
	b.count("swap")
	b.opens(nodeA, state, volumeKey)
	if n := b.count("swap"); n != 0 {
		t.Errorf("%d writes for a blob that was imported", n)
	}
	dir := b.dir
	b.stop()

	b = startIn(t, dir, open()) // the reference key is gone
	b.opens(nodeA, state, volumeKey)
	b.refused(nodeB, state, keeper.Denied, keeper.Imported)
	b.refused(nodeA, seal(volumeKey), keeper.Malformed, keeper.ImportOff)
	if _, err := b.RotateKey(t.Context(), op, nodeA); err != nil {
		t.Fatal(err)
	}
	b.opens(nodeA, state, volumeKey)
	b.ok(b.retire(nodeA, 1))
	b.opens(nodeA, state, volumeKey) // was sealed anew
	dir = b.dir
	b.stop()

	b = startIn(t, dir, with(open()))
	b.ok(b.forget(nodeA, nodeA))
	b.refused(nodeA, state, keeper.Denied, policy.NodeForgotten)
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{}))
	b.sealed(nodeA, "a new key")
	b.refused(nodeA, state, keeper.Denied, keeper.KeyRetired) // also with the reference key at hand
	b.refused(nodeB, state, keeper.Denied, keeper.Imported)
}

func TestImportUnderAllowList(t *testing.T) {
	seal, with := reference(t)
	b := start(t, with(keeper.Options{}))
	raw := seal(volumeKey)
	b.refused(nodeA, raw, keeper.Pending, policy.PendingApproval)
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{}))
	b.opens(nodeA, raw, volumeKey)
	b.ok(b.Revoke(t.Context(), op, nodeA))
	b.refused(nodeA, raw, keeper.Revoked, policy.NodeRevoked)
	b.refused(nodeA, seal(volumeKey), keeper.Revoked, policy.NodeRevoked)
	b.refused(nodeA, make([]byte, 60), keeper.Revoked, policy.NodeRevoked)
}

// TestImportAtOnce: of two nodes that bring one blob, one gets it.
func TestImportAtOnce(t *testing.T) {
	seal, with := reference(t)
	b := start(t, with(open()))
	for range 10 {
		raw := seal(volumeKey)
		var wg sync.WaitGroup
		got := make([]error, 3)
		for i, node := range []string{nodeA, nodeB, nodeC} {
			wg.Go(func() {
				var data *secret.Bytes
				data, got[i] = b.Unseal(t.Context(), from(node), raw)
				data.Wipe()
			})
		}
		wg.Wait()
		won := 0
		for _, err := range got {
			e, refused := errors.AsType[*keeper.Error](err)
			switch {
			case err == nil:
				won++
			case !refused || e.Reason != keeper.Imported:
				t.Error(err)
			}
		}
		if won != 1 {
			t.Fatalf("%d nodes got it", won)
		}
	}
}

// TestImportFails: each call fails once, and the blob still opens afterwards.
func TestImportFails(t *testing.T) {
	for _, call := range []string{"get", "swap", "swap, stored", "wrap", "unwrap", "append"} {
		for nth := 1; ; nth++ {
			seal, with := reference(t)
			b := start(t, with(open()))
			raw := seal(volumeKey)
			b.failing(func(c string, n int) bool { return c == call && n == nth })
			data, err := b.Unseal(t.Context(), from(nodeA), raw)
			b.failing(nil)
			if err != nil && (keeper.CodeOf(err) != keeper.Unavailable || data != nil) {
				t.Fatalf("%s %d: %v", call, nth, err)
			}
			b.opens(nodeA, raw, volumeKey)
			b.stop()
			if err == nil {
				if nth == 1 {
					t.Fatalf("%s was never called", call)
				}
				break
			}
		}
	}
}
