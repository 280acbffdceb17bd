package etcd

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	scrubLimit  = 10 * time.Minute
	memberLimit = 2 * time.Minute // a database of 8 GB takes a minute
)

// Scrub makes the cluster forget replaced values: their history is compacted, and
// the members' databases are rewritten, one member after the other, the leader last.
// A member takes no requests while it does so. One that is down keeps its database:
// then the error says so, and a later Scrub has to be done. Those who ask while
// another one waits share it.
func (s *Store) Scrub(ctx context.Context) error {
	s.mu.Lock()
	w := s.waiting
	if w == nil {
		w = &scrub{done: make(chan struct{})}
		s.waiting = w
		go s.lead(context.WithoutCancel(ctx), w)
	}
	s.mu.Unlock()
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		return classify("scrub", ctx.Err())
	}
}

// scrub is one that waits for the one before it, for all who want it.
type scrub struct {
	done chan struct{}
	err  error // set before done is closed
}

func (s *Store) lead(ctx context.Context, w *scrub) {
	s.scrubbing.Lock()
	defer s.scrubbing.Unlock()
	s.mu.Lock()
	s.waiting = nil // who comes now wants what is replaced from now on
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, scrubLimit)
	defer cancel()
	w.err = s.scrub(ctx)
	close(w.done)
}

func (s *Store) scrub(ctx context.Context) error {
	r, err := s.client.Get(ctx, s.last())
	if err != nil {
		return classify("scrub", err)
	}
	_, err = s.client.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) { // someone else just did
		return classify("scrub: compact", err)
	}
	members, err := s.members(ctx)
	var problems []error
	for _, m := range members {
		problems = append(problems, s.defragment(ctx, m))
	}
	return errors.Join(append(problems, err)...)
}

// members lists where each member takes requests, the leader last. Endpoints name
// some of them only.
func (s *Store) members(ctx context.Context) ([][]string, error) {
	list, err := s.client.MemberList(ctx)
	if err != nil {
		return nil, classify("scrub: list the members", err)
	}
	leader := uint64(0)
	for _, to := range s.client.Endpoints() {
		ask, cancel := context.WithTimeout(ctx, s.timeout)
		r, err := s.client.Status(ask, to)
		if cancel(); err == nil {
			leader = r.Leader
			break
		}
	}
	var first, last [][]string
	for _, m := range list.Members {
		if m.ID == leader {
			last = append(last, m.ClientURLs)
		} else {
			first = append(first, m.ClientURLs)
		}
	}
	return append(first, last...), nil
}

// up says why a member does not answer: the client would wait for one that is down.
func (s *Store) up(ctx context.Context, to string) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	_, err := s.client.Status(ctx, to)
	return err
}

// defragment rewrites the database of a member, at the first of its addresses that
// answers.
func (s *Store) defragment(ctx context.Context, addresses []string) error {
	err := errors.New("it has no address, so it was never started")
	for _, to := range addresses {
		if err = s.up(ctx, to); err != nil {
			continue
		}
		one, cancel := context.WithTimeout(ctx, memberLimit)
		_, err = s.client.Defragment(one, to)
		if cancel(); err == nil {
			return nil
		}
	}
	return classify("scrub: defragment "+strings.Join(addresses, ", "), err)
}
