// Package etcd keeps the key server's records in an etcd v3 cluster, so that any
// number of servers share them and none keeps anything itself.
//
//	<prefix>v/<name>   a value; etcd's mod revision is its revision
//	<prefix>last       written by every change, so that its revision is that of the last one
//
//	watch ──> copy of all values in memory <── Get with an age is answered from here
//	probe ──> four times a second: what is the last change?      │ copy too old, or no leader
//	                                                             v
//	          the cluster <──────────────────────────── linearizable Get
//
// What is guaranteed: what package store asks for. A Get with an age never gives
// anything older, also when this server is cut off from the cluster: the copy is
// as old as the last probe that the watch caught up with, and beyond the age the
// cluster is asked, which fails with ErrUnavailable if it has no quorum. So with an
// age of one second a revocation is seen by every server within a second.
//
// What it does not protect: clients of the same cluster with rights on the prefix
// can read and change everything; the key-encryption key must not be kept there.
// A change made by hand without writing <prefix>last is seen by the watch, and
// its age is not vouched for. Backups are etcd's own (etcdctl snapshot). The copy
// holds all records: about one kilobyte for a node. [Store.Scrub] cleans the members'
// databases; their write-ahead logs and snapshots keep what was replaced until etcd
// discards them, after some 10,000 changes, and its files are not overwritten: a key
// is gone for good when the key that wrapped it is.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/cryptctl/cryptctl/kms/store"
)

// Options say where the cluster is. Endpoints are needed.
type Options struct {
	Endpoints []string    // such as "https://etcd-1.example:2379"
	TLS       *tls.Config // with a client certificate, usually
	Prefix    string      // default "/cryptctl/kms/"; it must end with a slash
	Timeout   time.Duration
}

const (
	defaultTimeout = 5 * time.Second
	probeEvery     = 250 * time.Millisecond
	retryAfter     = 200 * time.Millisecond
	retryAtLast    = 3 * time.Second
	page           = 500
)

// Store is a connection to a cluster. Its methods may be called from many
// goroutines.
type Store struct {
	client  *clientv3.Client
	prefix  string
	timeout time.Duration
	view    view
	stop    context.CancelFunc
	stopped chan struct{}

	mu        sync.Mutex
	waiting   *scrub
	scrubbing sync.Mutex
}

var (
	_ store.Store    = (*Store)(nil)
	_ store.Scrubber = (*Store)(nil)
)

// Open begins to connect and returns; calls wait for the connection.
func Open(o Options) (*Store, error) {
	if o.Prefix == "" {
		o.Prefix = "/cryptctl/kms/"
	}
	if !strings.HasSuffix(o.Prefix, "/") || len(o.Endpoints) == 0 {
		return nil, errors.New("etcd: endpoints are needed, and a prefix that ends with a slash")
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: o.Endpoints, TLS: o.TLS, DialTimeout: o.Timeout,
		DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		Logger: zap.NewNop(), // what goes wrong is in the errors
		// gRPC would wait for up to two minutes between its attempts, and so would
		// the nodes of a fleet whose etcd comes up last.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: o.Timeout,
		})},
	})
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Store{client: client, prefix: o.Prefix, timeout: o.Timeout, stop: stop, stopped: make(chan struct{}, 2)}
	go s.follow(ctx)
	go s.probe(ctx)
	return s, nil
}

// Close ends the connection.
func (s *Store) Close() error {
	s.stop()
	err := s.client.Close()
	<-s.stopped
	<-s.stopped
	return err
}

func (s *Store) key(name string) string { return s.prefix + "v/" + name }
func (s *Store) last() string           { return s.prefix + "last" }

// Get returns a value that is at most age old.
func (s *Store) Get(ctx context.Context, name string, age time.Duration) (store.Entry, error) {
	if err := errors.Join(store.CheckName(name), ctx.Err()); err != nil {
		return store.Entry{}, err
	}
	if age > 0 {
		if e, found, known := s.view.get(name, age, time.Now()); known {
			return entry(name, e, found)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r, err := s.client.Get(ctx, s.key(name))
	if err != nil {
		return store.Entry{}, classify("read "+name, err)
	}
	if len(r.Kvs) == 0 {
		return entry(name, store.Entry{}, false)
	}
	return store.Entry{Value: r.Kvs[0].Value, Revision: uint64(r.Kvs[0].ModRevision)}, nil
}

func entry(name string, e store.Entry, found bool) (store.Entry, error) {
	if !found {
		return store.Entry{}, fmt.Errorf("%s: %w", name, store.ErrNotFound)
	}
	e.Value = append([]byte(nil), e.Value...)
	return e, nil
}

// Swap replaces a value and returns when a majority of the cluster has it.
func (s *Store) Swap(ctx context.Context, name string, old uint64, value []byte) (uint64, error) {
	if err := errors.Join(store.CheckName(name), store.CheckValue(value), ctx.Err()); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	key := s.key(name)
	r, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", int64(old))).
		Then(clientv3.OpPut(key, string(value)), clientv3.OpPut(s.last(), "")).
		Commit()
	if err != nil {
		return 0, classify("write "+name, err)
	}
	if !r.Succeeded {
		return 0, fmt.Errorf("%s: %w", name, store.ErrConflict)
	}
	return uint64(r.Header.Revision), nil
}

// List gives the names with a prefix, page by page, each as of then: a revision that
// a long list was begun at may be compacted before its end.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		if err := errors.Join(store.CheckPrefix(prefix), ctx.Err()); err != nil {
			yield(store.Item{}, err)
			return
		}
		from, end := s.key(prefix), clientv3.GetPrefixRangeEnd(s.key(prefix))
		for more := true; more; {
			r, err := s.page(ctx, from, end, 0)
			if err != nil {
				yield(store.Item{}, classify("list "+prefix, err))
				return
			}
			for _, kv := range r.Kvs {
				name, _ := strings.CutPrefix(string(kv.Key), s.key(""))
				if !yield(store.Item{Name: name, Entry: store.Entry{Value: kv.Value, Revision: uint64(kv.ModRevision)}}, nil) {
					return
				}
				from = string(kv.Key) + "\x00"
			}
			more = r.More
		}
	}
}

// page reads a part of a list; with revision 0, as of now.
func (s *Store) page(ctx context.Context, from, end string, revision int64) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend), clientv3.WithRev(revision))
}

// follow keeps the view in step until ctx ends.
func (s *Store) follow(ctx context.Context) {
	defer func() { s.stopped <- struct{}{} }()
	for wait := retryAfter; ctx.Err() == nil; {
		if revision, err := s.load(ctx); err == nil {
			wait = retryAfter
			s.watch(ctx, revision)
		} else {
			wait = min(2*wait, retryAtLast) // reading it all is work for the cluster
		}
		s.view.drop()
		pause(ctx, wait)
	}
}

// load reads everything and returns the revision that it is of.
func (s *Store) load(ctx context.Context) (int64, error) {
	at, values := time.Now(), map[string]store.Entry{}
	ask, cancel := context.WithTimeout(ctx, s.timeout)
	r, err := s.client.Get(ask, s.last())
	cancel()
	if err != nil {
		return 0, err
	}
	from, end := s.key(""), clientv3.GetPrefixRangeEnd(s.key(""))
	for more := true; more; {
		part, err := s.page(ctx, from, end, r.Header.Revision)
		if err != nil {
			return 0, err
		}
		for _, kv := range part.Kvs {
			values[strings.TrimPrefix(string(kv.Key), s.key(""))] = store.Entry{Value: kv.Value, Revision: uint64(kv.ModRevision)}
			from = string(kv.Key) + "\x00"
		}
		more = part.More
	}
	s.view.load(values, uint64(r.Header.Revision), at)
	return r.Header.Revision, nil
}

// watch applies changes after revision, in order, until it is lost: then, and
// when the member we talk to has no leader, all is read anew.
func (s *Store) watch(ctx context.Context, revision int64) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for r := range s.client.Watch(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1)) {
		if r.Err() != nil || !s.take(r.Events) {
			return
		}
	}
}

// take applies what one response of the watch tells; ok is false if all must be
// read anew. Nothing is missing up to its last event, and not up to the revision in
// its header: to a watch that catches up etcd sends a thousand revisions at a time,
// each response with the cluster's newest revision in its header.
func (s *Store) take(events []*clientv3.Event) (ok bool) {
	last := int64(0)
	for _, e := range events {
		last = max(last, e.Kv.ModRevision)
		name, isValue := strings.CutPrefix(string(e.Kv.Key), s.key(""))
		if isValue && e.Type != clientv3.EventTypePut {
			return false // we never delete: someone else did
		}
		if isValue {
			s.view.apply(name, store.Entry{Value: e.Kv.Value, Revision: uint64(e.Kv.ModRevision)})
		}
	}
	// Only now: a revision's events come in one response, and it may have more
	// than one value.
	s.view.apply("", store.Entry{Revision: uint64(last)})
	return true
}

// probe asks for the last change again and again.
func (s *Store) probe(ctx context.Context) {
	defer func() { s.stopped <- struct{}{} }()
	for ctx.Err() == nil {
		at := time.Now()
		ask, cancel := context.WithTimeout(ctx, s.timeout)
		r, err := s.client.Get(ask, s.last())
		cancel()
		if err == nil {
			revision := uint64(0)
			if len(r.Kvs) > 0 {
				revision = uint64(r.Kvs[0].ModRevision)
			}
			s.view.probed(at, revision)
		}
		pause(ctx, probeEvery)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// classify turns errors of the client into the store's. All that is not about
// the request may pass.
func classify(what string, err error) error {
	if errors.Is(err, rpctypes.ErrRequestTooLarge) || errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, rpctypes.ErrAuthFailed) {
		return fmt.Errorf("etcd: %s: %w", what, err)
	}
	return fmt.Errorf("etcd: %s: %w: %w", what, store.ErrUnavailable, err)
}
