package keeper_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/kek/kektest"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store/bolt"
	"github.com/cryptctl/cryptctl/secret"
)

// fakeVault is the fake of Transit with something wrong in front of it.
type fakeVault struct {
	kektest.Transit
	wrong atomic.Pointer[vaultFault]
}

// vaultFault is what is wrong. before handles a request, or returns false.
type vaultFault struct {
	name   string
	before func(http.ResponseWriter, *http.Request) bool
	goesOn bool // it is answered all the same
}

// ServeHTTP implements http.Handler.
func (f *fakeVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !f.wrong.Load().before(w, r) {
		f.Transit.ServeHTTP(w, r)
	}
}

const vaultTimeout = 600 * time.Millisecond

func says(status int, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
		return true
	}
}

func waits(d time.Duration) func(http.ResponseWriter, *http.Request) bool {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
		}
		return false
	}
}

func hangsUp(w http.ResponseWriter, _ *http.Request) bool {
	if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
		c.Close()
	}
	return true
}

// vaultFaults are what is wrong with it in turn.
func vaultFaults() []vaultFault {
	return []vaultFault{
		{"down", hangsUp, false},
		{"sealed", says(503, `{"errors":["Vault is sealed"]}`), false},
		{"a little slow", waits(vaultTimeout / 10), true},
		{"too slow", waits(2 * vaultTimeout), false},
		{"standby", says(429, ``), false},
		{"broken", says(500, `{"errors":["1 error occurred"]}`), false},
		{"denied", says(403, `{"errors":["permission denied"]}`), false},
		{"no JSON", says(200, `<html>`), false},
		{"no data", says(200, `{"data":{}}`), false},
		{"a plaintext that is too short", says(200, `{"data":{"plaintext":"AAAA","ciphertext":"x"}}`), false},
		{"other ciphertexts", says(200, `{"data":{"ciphertext":"vault:v1:QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB"}}`), false},
		{"not authentic", says(400, `{"errors":["cipher: message authentication failed"]}`), false},
		{"version gone", says(400, `{"errors":["ciphertext or signature version is disallowed by policy (too old)"]}`), false},
	}
}

// vaulted is a store whose keys the fake wraps, with keepers on it.
type vaulted struct {
	t     *testing.T
	vault *fakeVault
	kek   *kek.Transit
	store *bolt.DB
	log   *audit.Log

	mu    sync.Mutex
	acked []vaultAck
}

type vaultAck struct {
	node, data string
	blob       []byte
}

func startVaulted(t *testing.T) *vaulted {
	t.Helper()
	v := &vaulted{t: t, vault: &fakeVault{}}
	v.well()
	v.vault.Rotate()
	s := httptest.NewTLSServer(v.vault)
	t.Cleanup(s.Close)
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	err := errors.Join(
		os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600),
		os.WriteFile(token, []byte(kektest.Token), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	v.kek, err = kek.NewTransit(kek.TransitOptions{Address: s.URL, Mount: kektest.Mount, Key: kektest.Key, TokenFile: token, CAFile: ca, Timeout: vaultTimeout})
	if err != nil {
		t.Fatal(err)
	}
	if v.store, err = bolt.Open(filepath.Join(dir, "kms.db")); err != nil {
		t.Fatal(err)
	}
	if v.log, err = audit.Open(filepath.Join(dir, "audit"), audit.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(v.log.Close(), v.store.Close()); err != nil {
			t.Error(err)
		}
		if _, err := audit.Verify(context.Background(), filepath.Join(dir, "audit")); err != nil {
			t.Error(err)
		}
	})
	return v
}

func (v *vaulted) well() {
	v.vault.wrong.Store(&vaultFault{"nothing", func(http.ResponseWriter, *http.Request) bool { return false }, true})
}

// keeper makes one that keeps a number of nodes' keys unwrapped.
func (v *vaulted) keeper(cache int) *keeper.Keeper {
	v.t.Helper()
	k, err := keeper.New(v.t.Context(), keeper.Options{Store: v.store, KEK: v.kek, Audit: v.log, Cache: cache, Rules: policy.Rules{Enrol: policy.Open}})
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(k.Close)
	return k
}

// seal notes what was acknowledged.
func (v *vaulted) seal(ctx context.Context, k *keeper.Keeper, n int) error {
	a := vaultAck{node: fmt.Sprintf("01234567-89ab-cdef-0123-%012x", n), data: fmt.Sprint("data ", n)}
	var err error
	if a.blob, err = k.Seal(ctx, from(a.node), secret.Copy([]byte(a.data))); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.acked = append(v.acked, a)
	return nil
}

func (v *vaulted) opens(ctx context.Context, k *keeper.Keeper, a vaultAck) error {
	data, err := k.Unseal(ctx, from(a.node), a.blob)
	if err != nil {
		return err
	}
	defer k.Release(data)
	if string(data.Bytes()) != a.data {
		v.t.Errorf("node %s: a blob opens to other bytes", a.node)
	}
	return nil
}

// tally is what one kind of clients was answered.
type tally struct{ answered, refused int }

// ask asks again and again for a while, at least once.
func (v *vaulted) ask(d time.Duration, do func(n int) error) (sum tally) {
	for n, end := 0, time.Now().Add(d); n == 0 || time.Now().Before(end); n++ {
		err := do(n)
		switch e, ok := errors.AsType[*keeper.Error](err); {
		case err == nil:
			sum.answered++
		case ok && e.Code == keeper.Unavailable && strings.HasPrefix(string(e.Reason), string(keeper.NoKEK)):
			sum.refused++
			time.Sleep(time.Millisecond)
		default:
			v.t.Errorf("%s: a node is told: %v", v.vault.wrong.Load().name, err)
		}
	}
	return sum
}

// TestTransitFakeFaults: whatever is wrong with the server that has the KEK, nodes
// whose keys are unwrapped go on, all others are told to come back, and do so
// with success when it is well again; no key is lost or spoilt meanwhile.
func TestTransitFakeFaults(t *testing.T) {
	v := startVaulted(t)
	const warm = 20
	known, cold := v.keeper(0), v.keeper(1)
	for n := range warm {
		if err := v.seal(t.Context(), known, n); err != nil {
			t.Fatal(err)
		}
	}
	first := append([]vaultAck(nil), v.acked...)
	next, turn := atomic.Int64{}, 0
	next.Store(warm)
	var all [3]tally
	spoilt := []int64{} // nodes that asked while it was not well
	round := func(d time.Duration) (now [3]tally) {
		var clients sync.WaitGroup
		for kind, do := range []func(n int) error{
			func(n int) error { return v.opens(t.Context(), known, first[n%warm]) },
			func(int) error {
				turn++ // never the one whose key it still has
				return v.opens(t.Context(), cold, first[turn%warm])
			},
			func(int) error {
				n := next.Add(1)
				spoilt = append(spoilt, n)
				return v.seal(t.Context(), known, int(n))
			},
		} {
			clients.Go(func() { now[kind] = v.ask(d, do) })
		}
		clients.Wait()
		for kind, n := range now {
			all[kind].answered += n.answered
			all[kind].refused += n.refused
		}
		return now
	}
	for _, f := range vaultFaults() {
		v.vault.wrong.Store(&f)
		now := round(100 * time.Millisecond)
		if now[0].refused > 0 || now[0].answered == 0 {
			t.Errorf("%s: nodes whose keys are known: %+v", f.name, now[0])
		}
		for _, n := range now[1:] {
			if f.goesOn && n.refused > 0 || !f.goesOn && n.answered > 0 || n == (tally{}) {
				t.Errorf("%s: the others: %+v", f.name, now[1:])
			}
		}
		v.well()
		for _, n := range round(50 * time.Millisecond) {
			if n.refused > 0 || n.answered == 0 {
				t.Errorf("well again after %s: %+v", f.name, n)
			}
		}
	}
	for _, n := range spoilt { // those who were refused come back
		if err := v.seal(t.Context(), known, int(n)); err != nil {
			t.Errorf("%v", err)
		}
	}
	again, lost := v.keeper(0), 0
	for _, a := range v.acked {
		if err := v.opens(t.Context(), again, a); err != nil {
			lost++
			t.Errorf("afterwards: %v", err)
		}
	}
	t.Logf("SUMMARY fault Transit (a fake): %d faults; %d unseals of nodes whose keys were known, %d refused; %d of others and %d first seals, %d told to come back; of %d blobs %d were lost",
		len(vaultFaults()), all[0].answered, all[0].refused, all[1].answered, all[2].answered, all[1].refused+all[2].refused, len(v.acked), lost)
}
