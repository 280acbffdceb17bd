package kms

import (
	"bytes"
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"

	"github.com/cryptctl/cryptctl/kms/wire"
)

// method is one of the two calls.
type method func(wire.KMSServiceClient, context.Context, *wire.Request, ...grpc.CallOption) (*wire.Response, error)

// check judges an answer; it keeps nothing of it.
type check func(e Endpoint, answer []byte) *Error

// ask calls the endpoints in order, and again after a pause, until one gives an
// answer that counts or the budget is used up. The caller wipes the answer.
func (p *Provider) ask(ctx context.Context, do method, data []byte, judged check) ([]byte, error) {
	ctx, cancel := p.budget(ctx)
	defer cancel()
	states := make([]state, len(p.endpoints))
	for round := 0; ; round++ {
		for i, e := range p.endpoints {
			if ctx.Err() != nil || !states[i].due() {
				continue
			}
			answer, err, next := p.once(ctx, p.share(ctx, len(p.endpoints)-i), e, do, data, judged)
			switch {
			case err == nil:
				return answer, nil
			case next == final:
				return nil, err
			}
			if before := states[i].err; before != nil && err.Code == codes.DeadlineExceeded {
				err = before // says more than that a last short try was cut off
			}
			states[i] = state{err, time.Now().Add(spread(err.RetryAfter)), next == skip}
		}
		if !pause(ctx, untilNext(states, backoff(round))) {
			return nil, gaveUp(ctx, errorsOf(states))
		}
	}
}

// budget is the time of a whole call. It ends a little before that of the caller,
// who then gets the reason rather than silence.
func (p *Provider) budget(ctx context.Context) (context.Context, context.CancelFunc) {
	d := p.opts.Budget
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		d = min(d, left-min(left/20, 250*time.Millisecond))
	}
	return context.WithTimeout(ctx, d)
}

// share is how long one endpoint may take when so many, itself included, are still
// to be tried in this round: one that is dead leaves time for the others.
func (p *Provider) share(ctx context.Context, toTry int) time.Duration {
	end, _ := ctx.Deadline() // of budget
	return min(p.opts.CallTimeout, time.Until(end)/time.Duration(toTry))
}

// once calls one endpoint, on a connection of its own.
func (p *Provider) once(ctx context.Context, limit time.Duration, e Endpoint, do method, data []byte, judged check) ([]byte, *Error, outcome) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begin := time.Now()
	// A name may have several addresses, the first of them dead: the dialer divides
	// this time among them. It is longer than the call's, whose end says more.
	cc, err := Dial(e, p.tls, grpc.WithConnectParams(grpc.ConnectParams{Backoff: grpcbackoff.DefaultConfig, MinConnectTimeout: limit + limit/8}))
	if err != nil {
		out, _ := judge(e, err, 0)
		return nil, out, skip
	}
	defer cc.Close()
	// A copy on the heap: gRPC may look at a request for longer than the secret
	// has its memory.
	req := &wire.Request{NodeUuid: p.opts.NodeUUID, Data: bytes.Clone(data)}
	defer clear(req.Data)
	res, err := do(wire.NewKMSServiceClient(cc), ctx, req, grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		out, next := judge(e, err, time.Since(begin))
		return nil, out, next
	}
	if bad := judged(e, res.GetData()); bad != nil {
		clear(res.GetData())
		return nil, bad, skip
	}
	return res.GetData(), nil, final
}

// state is what is known of one endpoint within a call.
type state struct {
	err     *Error
	ready   time.Time // not to be tried before
	useless bool      // not to be tried again
}

func (s state) due() bool { return !s.useless && !time.Now().Before(s.ready) }

// untilNext is how long to wait until an endpoint may be tried: the pause, or as
// long as the servers want. Negative when none is left.
func untilNext(states []state, pause time.Duration) time.Duration {
	wait := time.Duration(-1)
	for _, s := range states {
		if s.useless {
			continue
		}
		if d := max(pause, time.Until(s.ready)); wait < 0 || d < wait {
			wait = d
		}
	}
	return wait
}

func errorsOf(states []state) []*Error {
	var all []*Error
	for _, s := range states {
		all = append(all, s.err)
	}
	return all
}

// pause waits, and reports whether there is time left afterwards. It does not wait
// for what comes too late.
func pause(ctx context.Context, d time.Duration) bool {
	end, _ := ctx.Deadline()
	if d < 0 || ctx.Err() != nil || time.Until(end) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

const (
	firstPause   = 250 * time.Millisecond
	longestPause = 4 * time.Second
)

// backoff is the pause after a round: it doubles, and is spread over a range, for
// after a power cut all nodes ask at once.
func backoff(round int) time.Duration {
	d := min(longestPause, firstPause<<min(round, 10))
	return d/2 + rand.N(d)
}

// spread is a server's wish, or up to half as long again: nodes that were sent away
// together must not come back together.
func spread(wish time.Duration) time.Duration {
	return wish + time.Duration(rand.Int64N(int64(wish)/2+1))
}
