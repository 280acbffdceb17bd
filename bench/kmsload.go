package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/wire"
)

// caller is a node: what it sealed, and how it is known.
type caller struct {
	uuid   string
	sealed []byte
	cert   *tls.Certificate // nil: it shows none
}

// dialer makes connections to one server.
type dialer struct {
	address string
	roots   *x509.CertPool
}

// dial makes a connection, which is established by the first call. Its buffers are
// small: ten thousand of them are to fit into this process.
func (d dialer) dial(c caller) (*grpc.ClientConn, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: d.roots}
	if c.cert != nil {
		config.Certificates = []tls.Certificate{*c.cert}
	}
	return grpc.NewClient("passthrough:///"+d.address, grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10), grpc.WithNoProxy())
}

func unseal(ctx context.Context, cc *grpc.ClientConn, c caller) error {
	r, err := wire.NewKMSServiceClient(cc).Unseal(ctx, &wire.Request{NodeUuid: c.uuid, Data: c.sealed})
	if err == nil && len(r.GetData()) != keySize {
		err = fmt.Errorf("an answer of %d bytes; %d were sealed", len(r.GetData()), keySize)
	}
	return err
}

// outcome is what a round of calls saw.
type outcome struct {
	took    []time.Duration // by each call that was answered, in order of time
	wall    time.Duration
	refused int           // for overload
	failed  int           // otherwise
	first   error         // of those that failed
	server  time.Duration // processor time
	client  time.Duration // processor time of this process
	memory  int64         // of the server, the most it had
	flight  int           // of a storm: the most that were on their way at a time
}

// percentile is the time within which that share of the calls was answered: the
// nearest rank.
func (o outcome) percentile(share float64) time.Duration {
	if len(o.took) == 0 {
		return 0
	}
	rank := int(math.Ceil(share * float64(len(o.took))))
	return o.took[min(max(rank, 1), len(o.took))-1]
}

func (o outcome) rate() float64 { return float64(len(o.took)) / o.wall.Seconds() }

// perCall is a total for each call that was answered.
func (o outcome) perCall(total time.Duration) float64 {
	return total.Seconds() / float64(len(o.took))
}

// add puts the outcome of one call in.
func (o *outcome) add(took time.Duration, err error) {
	switch {
	case err == nil:
		o.took = append(o.took, took)
	case status.Code(err) == codes.ResourceExhausted:
		o.refused++
	default:
		if o.failed++; o.first == nil {
			o.first = err
		}
	}
}

// merge adds what another worker saw.
func (o *outcome) merge(p outcome) {
	o.took = append(o.took, p.took...)
	o.refused += p.refused
	if o.failed += p.failed; o.first == nil {
		o.first = p.first
	}
}

// together runs n workers at once and joins what they saw.
func together(n int, work func(worker int, o *outcome)) outcome {
	var all sync.WaitGroup
	each := make([]outcome, n)
	begin, used := time.Now(), ownTime()
	for i := range n {
		all.Go(func() { work(i, &each[i]) })
	}
	all.Wait()
	wall, client := time.Since(begin), ownTime()-used
	o := joined(each)
	o.wall, o.client = wall, client
	return o
}

// joined is what all saw together.
func joined(each []outcome) (sum outcome) {
	for _, o := range each {
		sum.merge(o)
	}
	slices.Sort(sum.took)
	return sum
}

// crowd is callers with connections that are kept, each with one call at a time on
// its way on each of its lanes.
type crowd struct {
	callers []caller
	conns   []*grpc.ClientConn
	lanes   int
}

func (d dialer) crowd(callers []caller, lanes int) (*crowd, error) {
	c := &crowd{callers: callers, lanes: lanes}
	for _, one := range callers {
		cc, err := d.dial(one)
		if err != nil {
			c.close()
			return nil, err
		}
		c.conns = append(c.conns, cc)
	}
	return c, nil
}

func (c *crowd) close() {
	for _, cc := range c.conns {
		cc.Close()
	}
}

// run has everyone unseal again and again, for a time.
func (c *crowd) run(ctx context.Context, span time.Duration) outcome {
	end := time.Now().Add(span)
	return together(len(c.conns)*c.lanes, func(worker int, o *outcome) {
		i := worker % len(c.conns)
		for now := time.Now(); now.Before(end) && o.failed == 0; {
			err := unseal(ctx, c.conns[i], c.callers[i])
			begin := now
			now = time.Now()
			o.add(now.Sub(begin), err)
		}
	})
}

// storm is a boot of all callers at once: each makes a connection of its own,
// unseals once, and goes. Not more than flight are on their way at a time. What a
// call took counts from the moment all wanted to come. If paced, who is on the way
// goes before who has not begun: nodes have processors of their own, and do not wait
// for all others to have sent their first bytes, as they do here otherwise.
func (d dialer) storm(ctx context.Context, callers []caller, flight int, paced bool) outcome {
	var all sync.WaitGroup
	var now, most atomic.Int64
	each, room := make([]outcome, len(callers)), make(chan struct{}, flight)
	begin, used := time.Now(), ownTime()
	for i := range callers {
		room <- struct{}{}
		most.Store(max(most.Load(), now.Add(1)))
		all.Go(func() {
			err := d.once(ctx, callers[i])
			each[i].add(time.Since(begin), err)
			now.Add(-1)
			<-room
		})
		if paced {
			runtime.Gosched()
		}
	}
	all.Wait()
	wall, client := time.Since(begin), ownTime()-used
	o := joined(each)
	o.wall, o.client, o.flight = wall, client, int(most.Load())
	return o
}

func (d dialer) once(ctx context.Context, c caller) error {
	cc, err := d.dial(c)
	if err != nil {
		return err
	}
	defer cc.Close()
	return unseal(ctx, cc, c)
}

// ownTime is the processor time of this process alone.
func ownTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
