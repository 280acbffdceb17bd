package faults_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/store/bolt"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/test/interop/served"
)

// sealed is a blob that a node was handed, and what it holds.
type sealed struct {
	node       string
	blob, data []byte
}

// load is clients that seal and unseal, and what they were answered, over all
// lives of a server.
type load struct {
	t *testing.T

	mu      sync.Mutex
	acked   []sealed
	seals   map[string]int // by node
	unseals map[string]int
	opened  int
	lost    int            // acknowledged, and does not open
	refused map[string]int // by reason
	nodes   int
	worst   time.Duration // of an answer
}

func newLoad(t *testing.T) *load {
	return &load{t: t, seals: map[string]int{}, unseals: map[string]int{}, refused: map[string]int{}}
}

// run asks with a number of clients, each with its own connection and address,
// until the returned function is called.
func (l *load) run(s *served.Server, clients int) (stop func()) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for c := range clients {
		cc := s.Connect(l.t, fmt.Sprint("127.0.1.", c+1))
		all.Go(func() {
			defer cc.Close()
			for ctx.Err() == nil {
				if !l.once(ctx, wire.NewKMSServiceClient(cc)) {
					time.Sleep(2 * time.Millisecond)
				}
			}
		})
	}
	return sync.OnceFunc(func() { cancel(); all.Wait() })
}

// once seals for a new node, or a known one, and unseals something.
func (l *load) once(ctx context.Context, c wire.KMSServiceClient) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s := sealed{node: l.node(), data: make([]byte, 32)}
	rand.Read(s.data)
	begin := time.Now()
	res, err := c.Seal(ctx, &wire.Request{NodeUuid: s.node, Data: bytes.Clone(s.data)})
	if s.blob = res.GetData(); l.answered(err, begin) {
		l.mu.Lock()
		l.acked = append(l.acked, s)
		l.seals[s.node]++
		l.mu.Unlock()
	}
	some, ok := l.any()
	return ok && l.opens(ctx, c, some) && err == nil
}

func (l *load) node() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nodes == 0 || mrand.IntN(2) == 0 {
		l.nodes++
		return nodeName(l.nodes)
	}
	return nodeName(1 + mrand.IntN(l.nodes))
}

func nodeName(n int) string { return fmt.Sprintf("01234567-89ab-cdef-0123-%012x", n) }

func (l *load) any() (sealed, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.acked) == 0 {
		return sealed{}, false
	}
	return l.acked[mrand.IntN(len(l.acked))], true
}

// opens has a blob opened; an answer must be the data, a refusal Unavailable.
func (l *load) opens(ctx context.Context, c wire.KMSServiceClient, s sealed) bool {
	begin := time.Now()
	res, err := c.Unseal(ctx, &wire.Request{NodeUuid: s.node, Data: s.blob})
	if !l.answered(err, begin) {
		return false
	}
	if !bytes.Equal(res.GetData(), s.data) {
		l.t.Errorf("node %s: a blob opens to other bytes", s.node)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened++
	l.unseals[s.node]++
	return true
}

// answered judges how a call ended.
func (l *load) answered(err error, begin time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.worst = max(l.worst, time.Since(begin))
	if err == nil {
		return true
	}
	st := status.Convert(err)
	switch st.Code() {
	case codes.Unavailable:
		l.refused[reasonOf(st)]++
	case codes.Canceled: // the load ends
	default:
		l.t.Errorf("a node is told: %v", err)
	}
	return false
}

// reasonOf is the server's own reason; "connection" if it was not there to give one.
func reasonOf(s *status.Status) string {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return "connection"
}

// refusals counts them, of these reasons.
func (l *load) refusals(reasons ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for reason, times := range l.refused {
		if slices.Contains(reasons, reason) {
			n += times
		}
	}
	return n
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

func (l *load) countOpened() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.opened
}

// allOpen has the server open every blob that was ever acknowledged.
func (l *load) allOpen(s *served.Server) {
	l.t.Helper()
	const clients = 8
	var all sync.WaitGroup
	for c := range clients {
		cc := s.Connect(l.t, "")
		all.Go(func() {
			defer cc.Close()
			for i := c; i < len(l.acked); i += clients {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				if !l.opens(ctx, wire.NewKMSServiceClient(cc), l.acked[i]) {
					l.t.Errorf("node %s: blob %d of %d does not open: %s", l.acked[i].node, i, len(l.acked), s.Log())
					l.mu.Lock()
					l.lost++
					l.mu.Unlock()
				}
				cancel()
			}
		})
	}
	all.Wait()
}

// onRecord verifies the log and holds it against the answers: none is without its
// record. It returns how many records there are.
func (l *load) onRecord(dir string) uint64 {
	l.t.Helper()
	rep, err := audit.Verify(l.t.Context(), dir)
	if err != nil {
		l.t.Fatal(err)
	}
	seals, unseals := map[string]int{}, map[string]int{}
	for r, err := range audit.Read(dir, 1) {
		if err != nil {
			l.t.Fatal(err)
		}
		switch {
		case r.Outcome == "allowed" && r.Op == "seal":
			seals[r.Node]++
		case r.Outcome == "allowed" && r.Op == "unseal":
			unseals[r.Node]++
		}
	}
	var missing []error
	for node, n := range l.seals {
		if seals[node] < n {
			missing = append(missing, fmt.Errorf("%s: %d seals answered, %d on record", node, n, seals[node]))
		}
	}
	for node, n := range l.unseals {
		if unseals[node] < n {
			missing = append(missing, fmt.Errorf("%s: %d unseals answered, %d on record", node, n, unseals[node]))
		}
	}
	if err := errors.Join(missing...); err != nil {
		l.t.Errorf("answers without a record:\n%v", err)
	}
	return rep.Records
}

// whole checks the store of a server that was stopped.
func (l *load) whole(path string) {
	l.t.Helper()
	if _, err := bolt.Check(path); err != nil {
		l.t.Error(err)
	}
}

// reasons is the refusals in words.
func (l *load) reasons() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var words []string
	for reason, n := range l.refused {
		words = append(words, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}
