package keeper_test

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/kms/store/bolt"
	"github.com/cryptctl/cryptctl/secret"
)

const (
	nodeA = "01234567-89ab-cdef-0123-456789abcdef"
	nodeB = "01234567-89ab-cdef-0123-456789abcdee"
	nodeC = "01234567-89ab-cdef-0123-456789abcded"
)

var errPlanned = errors.New("planned failure")

// wrapped counts calls and lets them fail.
type counter struct {
	mu    sync.Mutex
	calls map[string]int
	fail  func(call string, nth int) bool
}

func (c *counter) hit(call string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = map[string]int{}
	}
	c.calls[call]++
	if c.fail != nil && c.fail(call, c.calls[call]) {
		return errPlanned
	}
	return nil
}

// count returns the calls so far and forgets them.
func (c *counter) count(call string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.calls[call]
	delete(c.calls, call)
	return n
}

func (c *counter) failing(f func(call string, nth int) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail, c.calls = f, nil
}

func only(call string) func(string, int) bool {
	return func(c string, _ int) bool { return c == call }
}

type countedStore struct {
	*counter
	store.Store
}

func (s countedStore) Get(ctx context.Context, name string, age time.Duration) (store.Entry, error) {
	if err := s.hit("get"); err != nil {
		return store.Entry{}, err
	}
	return s.Store.Get(ctx, name, age)
}

func (s countedStore) Swap(ctx context.Context, name string, old uint64, value []byte) (uint64, error) {
	if err := s.hit("swap"); err != nil {
		return 0, err
	}
	rev, err := s.Store.Swap(ctx, name, old, value)
	if err == nil {
		err = s.hit("swap, stored") // the value is there and the answer is lost
	}
	return rev, err
}

func (s countedStore) List(ctx context.Context, prefix string) iter.Seq2[store.Item, error] {
	if err := s.hit("list"); err != nil {
		return func(yield func(store.Item, error) bool) { yield(store.Item{}, err) }
	}
	return s.Store.List(ctx, prefix)
}

func (s countedStore) Scrub(ctx context.Context) error { return s.Store.(store.Scrubber).Scrub(ctx) }

func (s countedStore) Generation() uint64 { return s.Store.(store.Generational).Generation() }

type countedKEK struct {
	*counter
	*kek.Keyset
}

func (k countedKEK) Wrap(ctx context.Context, key *secret.Bytes, bound []byte) ([]byte, error) {
	if err := k.hit("wrap"); err != nil {
		return nil, err
	}
	return k.Keyset.Wrap(ctx, key, bound)
}

func (k countedKEK) Unwrap(ctx context.Context, wrapped, bound []byte) (*secret.Bytes, error) {
	if err := k.hit("unwrap"); err != nil {
		return nil, err
	}
	return k.Keyset.Unwrap(ctx, wrapped, bound)
}

type countedAudit struct {
	*counter
	*audit.Log
	mu   sync.Mutex
	last audit.Event
}

func (a *countedAudit) Append(e audit.Event) error {
	if err := a.hit("append"); err != nil {
		return err
	}
	err := a.Log.Append(e)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = e
	return err
}

// bench is a keeper with everything it stands on, in a directory.
type bench struct {
	*keeper.Keeper
	*counter
	t     testing.TB
	dir   string
	store *bolt.DB
	keys  *kek.Keyset
	log   *countedAudit
	mu    sync.Mutex
	now   time.Time
}

func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

// start makes a keeper in a new directory. The options' Store, KEK, Audit and Now
// are set.
func start(t testing.TB, o keeper.Options) *bench {
	t.Helper()
	return startIn(t, t.TempDir(), o)
}

func startIn(t testing.TB, dir string, o keeper.Options) *bench {
	t.Helper()
	b := &bench{t: t, dir: dir, counter: &counter{}, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	var err error
	if b.store, err = bolt.Open(filepath.Join(dir, "kms.db")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "kek.json")
	s := kek.Secret{KeyFile: secret.Copy(make([]byte, 32))}
	if b.keys, err = kek.Open(t.Context(), path, s); err != nil {
		b.keys, err = kek.Create(t.Context(), path, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(filepath.Join(dir, "audit"), audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b.log = &countedAudit{counter: b.counter, Log: l}
	o.Store, o.KEK, o.Audit, o.Now = countedStore{b.counter, b.store}, countedKEK{b.counter, b.keys}, b.log, b.clock
	if b.Keeper, err = keeper.New(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.stop)
	return b
}

// stop ends everything; it may be called again.
func (b *bench) stop() {
	if b.Keeper == nil {
		return
	}
	b.failing(nil)
	b.Keeper.Close()
	b.Keeper = nil
	if err := errors.Join(b.log.Close(), b.store.Close()); err != nil {
		b.t.Error(err)
	}
	b.keys.Close()
	if _, err := audit.Verify(context.Background(), filepath.Join(b.dir, "audit"), b.log.Head()); err != nil {
		b.t.Error(err)
	}
	if _, err := bolt.Check(filepath.Join(b.dir, "kms.db")); err != nil {
		b.t.Error(err)
	}
}

// recorded returns the last record.
func (b *bench) recorded() audit.Event {
	b.log.mu.Lock()
	defer b.log.mu.Unlock()
	return b.log.last
}

var home = netip.MustParseAddr("192.0.2.7")

func from(node string) keeper.Request { return keeper.Request{Node: node, Source: home, Actor: "test"} }

func (b *bench) sealed(node, data string) []byte {
	b.t.Helper()
	raw, err := b.Seal(b.t.Context(), from(node), secret.Copy([]byte(data)))
	if err != nil {
		b.t.Fatal(err)
	}
	return raw
}

// opens says that the blob gives the data.
func (b *bench) opens(node string, raw []byte, data string) {
	b.t.Helper()
	got, err := b.Unseal(b.t.Context(), from(node), raw)
	if err != nil {
		b.t.Fatal(err)
	}
	defer b.Release(got)
	if string(got.Bytes()) != data {
		b.t.Fatalf("got %d other bytes", got.Len())
	}
}

// refused says that the blob gives an error of this kind, which is on record.
func (b *bench) refused(node string, raw []byte, code keeper.Code, reason policy.Reason) *keeper.Error {
	b.t.Helper()
	got, err := b.Unseal(b.t.Context(), from(node), raw)
	return b.judge(got != nil, err, code, reason)
}

func (b *bench) sealRefused(node string, n int, code keeper.Code, reason policy.Reason) {
	b.t.Helper()
	raw, err := b.Seal(b.t.Context(), from(node), secret.Random(n))
	b.judge(raw != nil, err, code, reason)
}

func (b *bench) judge(got bool, err error, code keeper.Code, reason policy.Reason) *keeper.Error {
	b.t.Helper()
	e, ok := errors.AsType[*keeper.Error](err)
	if !ok || e.Code != code || e.Reason != reason || got {
		b.t.Fatalf("%v (an answer: %v), want %s: %s", err, got, code, reason)
	}
	if l := b.recorded(); reason != keeper.NoAudit && (l.Outcome != string(code) || l.Code != string(reason)) {
		b.t.Errorf("on record: %+v", l)
	}
	return e
}

func (b *bench) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

var elsewhere = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}

// op is who changes things in the tests.
var op = keeper.Operator{Name: "op", Source: home}

func (b *bench) forget(node, confirm string) error {
	_, err := b.Forget(b.t.Context(), op, node, confirm)
	return err
}

// retire retires all versions up to this one.
func (b *bench) retire(node string, version uint32) error {
	_, err := b.RetireKeys(b.t.Context(), op, node, version+1)
	return err
}

func open() keeper.Options { return keeper.Options{Rules: policy.Rules{Enrol: policy.Open}} }

func canonical(t testing.TB, s string) blob.Node {
	t.Helper()
	n, err := blob.ParseNode(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
