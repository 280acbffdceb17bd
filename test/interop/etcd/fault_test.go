package etcd_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store/etcd"
	"github.com/cryptctl/cryptctl/secret"
)

// faulty is key servers on a fleet, one at each member and one at all of them,
// under load all the time.
type faulty struct {
	*fleet
	servers []*keeper.Keeper
	logs    []string

	mu          sync.Mutex
	acked       []ack
	unseals     int
	unavailable int
	last        time.Time // an answer was given
	gap         time.Duration
	shut        time.Time // from now on no call that begins may be answered; zero: they may
	shutAnswers int
}

type ack struct {
	node, data string
	blob       []byte
}

// callTimeout is how long a server waits for etcd.
const callTimeout = time.Second

func startFaulty(t *testing.T) (f *faulty, stop func()) {
	t.Helper()
	f = &faulty{fleet: startFleet(t, 3), last: time.Now()}
	keys, err := kek.Create(t.Context(), filepath.Join(t.TempDir(), "kek.json"), kek.Secret{KeyFile: secret.Random(32)})
	if err != nil {
		t.Fatal(err)
	}
	var every []string
	for _, m := range f.members {
		every = append(every, m.Client)
		f.serve(keys, m.Client)
	}
	f.serve(keys, every...)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for s := range f.servers {
		for range 2 {
			all.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					f.once(ctx, s, n)
				}
			})
		}
	}
	return f, sync.OnceFunc(func() { cancel(); all.Wait() })
}

func (f *faulty) serve(keys *kek.Keyset, endpoints ...string) {
	f.t.Helper()
	dir := f.t.TempDir()
	l, err := audit.Open(dir, audit.Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	s, err := etcd.Open(etcd.Options{Endpoints: endpoints, Timeout: callTimeout})
	if err != nil {
		f.t.Fatal(err)
	}
	k, err := keeper.New(f.t.Context(), keeper.Options{Store: s, KEK: keys, Audit: l, Rules: policy.Rules{Enrol: policy.Open}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { k.Close(); s.Close(); l.Close() })
	f.servers, f.logs = append(f.servers, k), append(f.logs, dir)
}

// once seals at one server and unseals what any server sealed.
func (f *faulty) once(ctx context.Context, s, n int) {
	a := ack{node: fmt.Sprintf("01234567-89ab-cdef-%04x-%012x", s, n/3), data: fmt.Sprintf("data %d at %d", n, s)}
	begin := time.Now()
	raw, err := f.servers[s].Seal(ctx, request(a.node), secret.Copy([]byte(a.data)))
	if a.blob = raw; f.answered(ctx, begin, err) {
		f.mu.Lock()
		f.acked = append(f.acked, a)
		f.mu.Unlock()
	}
	f.mu.Lock()
	ok := len(f.acked) > 0
	if ok {
		a = f.acked[rand.IntN(len(f.acked))]
	}
	f.mu.Unlock()
	if ok {
		f.opens(ctx, s, a)
	}
	time.Sleep(5 * time.Millisecond)
}

func (f *faulty) opens(ctx context.Context, s int, a ack) bool {
	begin := time.Now()
	data, err := f.servers[s].Unseal(ctx, request(a.node), a.blob)
	if !f.answered(ctx, begin, err) {
		return false
	}
	defer f.servers[s].Release(data)
	if string(data.Bytes()) != a.data {
		f.t.Errorf("node %s: a blob opens to other bytes", a.node)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unseals++
	return true
}

// answered judges an answer: data, or Unavailable.
func (f *faulty) answered(ctx context.Context, begin time.Time, err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		if f.unavailable++; keeper.CodeOf(err) != keeper.Unavailable && ctx.Err() == nil {
			f.t.Errorf("a node is told: %v", err)
		}
		return false
	}
	if !f.shut.IsZero() && begin.After(f.shut) {
		f.shutAnswers++
	}
	f.gap = max(f.gap, time.Since(f.last))
	f.last = time.Now()
	return true
}

// recovered waits until every one of these servers seals, and returns how long
// that took.
func (f *faulty) recovered(servers ...int) time.Duration {
	f.t.Helper()
	begin := time.Now()
	for _, s := range servers {
		for {
			if _, err := f.servers[s].Seal(f.t.Context(), request(node), secret.Random(32)); err == nil {
				break
			}
			if time.Since(begin) > 25*time.Second {
				f.t.Fatalf("server %d does not come back", s)
			}
		}
	}
	return time.Since(begin)
}

// revoked revokes a node at a server, right after the fault, while all of them
// unseal for it all the time: none may answer a call that begins a second later.
// It returns how long the revocation took, how many answers there were to calls
// that began after it, and how long after it the last of these began.
func (f *faulty) revoked(name string, at int, fault func()) (took time.Duration, after int, late time.Duration) {
	f.t.Helper()
	raw, err := f.servers[at].Seal(f.t.Context(), request(name), secret.Random(32))
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	var mu sync.Mutex
	var answers []time.Time
	var all sync.WaitGroup
	for _, k := range f.servers {
		all.Go(func() {
			for ctx.Err() == nil {
				begin := time.Now()
				data, err := k.Unseal(ctx, request(name), raw)
				k.Release(data)
				if err == nil {
					mu.Lock()
					answers = append(answers, begin)
					mu.Unlock()
				}
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	fault()
	begin := time.Now()
	f.operator(func() error { return f.servers[at].Revoke(f.t.Context(), keeper.Operator{Name: "op"}, name) })
	done := time.Now()
	time.Sleep(keeper.MaxAge + callTimeout + 500*time.Millisecond)
	cancel()
	all.Wait()
	if len(answers) < len(f.servers) {
		f.t.Errorf("only %d answers before: too few to show something", len(answers))
	}
	for _, begun := range answers {
		if d := begun.Sub(done); d > 0 {
			after++
			late = max(late, d)
		}
	}
	if late > keeper.MaxAge {
		f.t.Errorf("a revoked node was answered %s after its revocation", late)
	}
	return done.Sub(begin), after, late
}

// operator tries until it is done.
func (f *faulty) operator(do func() error) {
	f.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			f.t.Fatal(err)
		}
	}
}

// stays checks that a revoked node is refused everywhere.
func (f *faulty) stays(name string) {
	f.t.Helper()
	for s, k := range f.servers {
		if _, err := k.Seal(f.t.Context(), request(name), secret.Random(32)); keeper.CodeOf(err) != keeper.Revoked {
			f.t.Errorf("server %d, a revoked node: %v", s, err)
		}
	}
}

// TestFaults kills the leader, cuts it off, and takes the majority away, under the
// load of four servers.
func TestFaults(t *testing.T) {
	f, stop := startFaulty(t)
	defer stop()
	every := []int{0, 1, 2, 3}
	f.recovered(every...)
	names := [3]string{"11234567-89ab-cdef-0123-456789abcdef", "21234567-89ab-cdef-0123-456789abcdef", "31234567-89ab-cdef-0123-456789abcdef"}
	f.leaderKilled()
	f.leaderKilled()
	took, after, late := f.revoked(names[0], 3, func() {})
	t.Logf("SUMMARY fault etcd, none: a revocation took %s; %d answers to calls that began after it, the last %s after", took.Round(time.Millisecond), after, late.Round(time.Millisecond))
	lead := f.leader()
	f.partitioned("leader", lead, names[1])
	f.partitioned("follower", (f.leader()+1)%3, names[2])
	f.withoutMajority(every)
	for _, name := range names {
		f.stays(name)
	}
	stop()
	f.over()
}

// leaderKilled kills the leader and starts it again.
func (f *faulty) leaderKilled() {
	f.t.Helper()
	lost := f.leader()
	f.kill(lost)
	took := f.recovered(3, (lost+1)%3, (lost+2)%3)
	f.restart(lost)
	f.t.Logf("SUMMARY fault etcd leader killed (kill -9): the other servers seal again after %s, its own %s after its restart",
		took.Round(time.Millisecond), f.recovered(lost).Round(time.Millisecond))
}

// partitioned cuts a member off and revokes a node at another one.
func (f *faulty) partitioned(what string, lost int, name string) {
	f.t.Helper()
	took, after, late := f.revoked(name, (lost+1)%3, func() { f.cut(lost) })
	if cuts := f.members[lost].link.cuts; cuts == 0 {
		f.t.Error("nothing was cut")
	}
	f.recovered((lost+1)%3, (lost+2)%3)
	if _, err := f.servers[lost].Seal(f.t.Context(), request(node), secret.Random(32)); keeper.CodeOf(err) != keeper.Unavailable {
		f.t.Errorf("the server at the member that is cut off seals: %v", err)
	}
	f.heal()
	f.t.Logf("SUMMARY fault etcd %s partitioned: a revocation at the majority took %s; %d answers to calls that began after it, the last %s after; the member's own server seals %s after the end",
		what, took.Round(time.Millisecond), after, late.Round(time.Millisecond), f.recovered(lost).Round(time.Millisecond))
	f.stays(name)
}

// withoutMajority kills two members: after a second nothing is answered, until they
// are back.
func (f *faulty) withoutMajority(every []int) {
	f.t.Helper()
	f.kill(0)
	f.kill(1)
	f.mu.Lock()
	f.shut = time.Now().Add(keeper.MaxAge)
	refused := f.unavailable
	f.mu.Unlock()
	time.Sleep(keeper.MaxAge + 2*callTimeout)
	for s, k := range f.servers {
		ctx, cancel := context.WithTimeout(f.t.Context(), 3*callTimeout)
		if err := k.Ready(ctx); err == nil {
			f.t.Errorf("server %d says that it is ready", s)
		}
		cancel()
	}
	f.mu.Lock()
	f.shut = time.Time{}
	refused, answers := f.unavailable-refused, f.shutAnswers
	f.mu.Unlock()
	if answers > 0 || refused == 0 {
		f.t.Errorf("without a majority %d calls were answered and %d refused", answers, refused)
	}
	f.restart2(0, 1)
	f.t.Logf("SUMMARY fault etcd majority lost: %d calls answered Unavailable, %d answered that began a second later or more; all servers seal again %s after the members' restart",
		refused, answers, f.recovered(every...).Round(time.Millisecond))
}

// restart2 starts two members at once: neither gets ready alone.
func (f *faulty) restart2(a, b int) {
	f.t.Helper()
	done := make(chan error, 1)
	go func() { done <- f.members[a].start() }()
	f.restart(b)
	if err := <-done; err != nil {
		f.t.Fatal(err)
	}
}

// over checks that all that was acknowledged opens at every server, and the logs.
func (f *faulty) over() {
	f.t.Helper()
	f.t.Logf("SUMMARY fault etcd, all: %d seals and %d unseals acknowledged by 4 servers under load, %d calls answered Unavailable, at most %s without an answer anywhere",
		len(f.acked), f.unseals, f.unavailable, f.gap.Round(time.Millisecond))
	if len(f.acked) < 200 {
		f.t.Errorf("only %d seals: too few to show something", len(f.acked))
	}
	var all sync.WaitGroup
	var lost atomic.Int64
	for s := range f.servers {
		all.Go(func() {
			for i, a := range f.acked {
				if !f.opens(f.t.Context(), s, a) {
					lost.Add(1)
					f.t.Errorf("server %d does not open blob %d of node %s", s, i, a.node)
				}
			}
		})
	}
	all.Wait()
	f.t.Logf("SUMMARY fault etcd, afterwards: each of %d blobs was opened at each of %d servers, %d did not open", len(f.acked), len(f.servers), lost.Load())
	for _, dir := range f.logs {
		if _, err := audit.Verify(f.t.Context(), dir); err != nil {
			f.t.Error(err)
		}
	}
}
