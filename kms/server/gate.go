package server

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/role"
)

// Calls at a time beside those of nodes; each kind has its own, so that none takes
// the place of another.
const (
	operatorCalls = 256
	healthCalls   = 256
	otherCalls    = 16 // reflection, and what there is not
)

// budgets are the calls that there may be at a time.
type budgets struct{ nodes, operators, health, other *shares }

func newBudgets(l Limits) budgets {
	return budgets{newShares(l.Streams, 0), newShares(operatorCalls, 0), newShares(healthCalls, 0), newShares(otherCalls, 0)}
}

// gate is what calls of one listener go through.
type gate struct {
	*Server
	config *tls.Config // of the listener; nil in plaintext
}

// call is a call, from its headers on.
type call struct {
	cut    context.CancelCauseFunc
	shares *shares
	hold   *hold
	whole  time.Duration // that it may take; 0: no bound
	timer  *time.Timer   // cuts it
	there  bool          // all of the request
	forget func() bool   // that end is to be called
}

// end gives back what the call held.
func (c *call) end() {
	c.timer.Stop()
	c.shares.give(c.hold)
}

type callKey struct{}

// errSlow: a client did not take what it asked for.
var errSlow = errors.New("the client does not read")

// budget is where a call counts, and how long it may take.
func (g gate) budget(ctx context.Context, method string) (*shares, time.Duration) {
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	switch service {
	case wire.KMSService_ServiceDesc.ServiceName:
		return g.budgets.nodes, g.limits.Stream
	case wire.Admin_ServiceDesc.ServiceName:
		if callerOf(ctx).role != role.None {
			return g.budgets.operators, 0
		}
	case healthpb.Health_ServiceDesc.ServiceName:
		return g.budgets.health, g.limits.Stream
	}
	return g.budgets.other, g.limits.Stream
}

// tap bounds calls in number and in time before anything is kept for one: a client
// may open them and send nothing.
func (g gate) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	ctx, cut := context.WithCancelCause(ctx)
	c := &call{cut: cut}
	c.shares, c.whole = g.budget(ctx, info.FullMethodName)
	if c.hold = c.shares.take(sourceOf(placeOf(ctx)), func() { cut(errOverload) }); c.hold == nil {
		cut(errOverload)
		g.count.overload.Add(1)
		return nil, g.overloaded()
	}
	c.timer = time.AfterFunc(g.limits.Request, func() { cut(context.DeadlineExceeded) })
	c.forget = context.AfterFunc(ctx, c.end) // at the latest
	return context.WithValue(ctx, callKey{}, c), nil
}

// answered ends a node's call with its answer, which is small enough to wait for
// nobody. Leaving that to the end of its context takes a goroutine for each call.
func (g gate) answered(ctx context.Context) {
	if c, ok := ctx.Value(callKey{}).(*call); ok && c.shares == g.budgets.nodes && c.forget() {
		c.end()
	}
}

func (g gate) overloaded() error {
	return refuse(codes.ResourceExhausted, "overload", "too many requests at once", g.queue.retryAfter())
}

// arrived notes that the request is complete.
func arrived(ctx context.Context) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok || c.there || !c.timer.Stop() {
		return
	}
	c.there = true
	c.shares.settle(c.hold)
	if c.whole > 0 {
		c.timer.Reset(c.whole)
	}
}

// why is the answer to a call that was cut, or err if it was not.
func (g gate) why(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errOverload):
		g.count.overload.Add(1)
		return g.overloaded()
	case errors.Is(cause, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "the call took too long")
	case errors.Is(cause, errSlow):
		return status.Error(codes.DeadlineExceeded, cause.Error())
	}
	return err
}

var errDraining = status.Error(codes.Unavailable, "the key server is shutting down")

// unary judges operators by their role, and counts.
func (g gate) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (res any, err error) {
	begin := time.Now()
	arrived(ctx)
	defer g.answered(ctx)
	switch {
	case g.draining.Err() != nil && info.FullMethod != healthpb.Health_Check_FullMethodName:
		err = errDraining
	default:
		if err = g.mayCall(ctx, info.FullMethod); err == nil {
			res, err = handler(ctx, req)
			err = g.why(ctx, err)
		}
	}
	g.count.timed(info.FullMethod, time.Since(begin))
	g.count.called(info.FullMethod, status.Code(err))
	return res, err
}

// streaming is the same for calls with streams, which end when the server does.
func (g gate) streaming(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	defer context.AfterFunc(g.draining, func() { cancel(errDraining) })()
	err := g.mayCall(ctx, info.FullMethod)
	if err == nil {
		defer g.rejudge(ctx, info.FullMethod, cancel)()
		err = g.why(ctx, handler(srv, ending{ss, ctx, g.limits.Send}))
		if refused, ok := status.FromError(context.Cause(ctx)); ok && err != nil && ctx.Err() != nil {
			err = refused.Err()
		}
	}
	g.count.called(info.FullMethod, status.Code(err)) // some have no end by themselves: not a time that calls take
	return err
}

// rejudge ends a call of operators that goes on once it is not allowed any more: its
// certificate may end, or its authority. It does so until stop is called.
func (g gate) rejudge(ctx context.Context, method string, end context.CancelCauseFunc) (stop func()) {
	if !isAdmin(method) {
		return func() {}
	}
	tick, done := time.NewTicker(g.limits.Judge), make(chan struct{})
	go func() {
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if err := g.mayCall(ctx, method); err != nil {
					end(err)
					return
				}
			}
		}
	}()
	return func() { close(done) }
}

// ending is a stream with a context of its own, in which a client has a time to
// take each message.
type ending struct {
	grpc.ServerStream
	ctx  context.Context
	each time.Duration
}

// Context implements grpc.ServerStream.
func (e ending) Context() context.Context { return e.ctx }

// RecvMsg implements grpc.ServerStream.
func (e ending) RecvMsg(m any) error {
	err := e.ServerStream.RecvMsg(m)
	if err == nil {
		arrived(e.ctx)
	}
	return err
}

// SendMsg implements grpc.ServerStream.
func (e ending) SendMsg(m any) error {
	if c, ok := e.ctx.Value(callKey{}).(*call); ok {
		defer time.AfterFunc(e.each, func() { c.cut(errSlow) }).Stop()
	}
	err := e.ServerStream.SendMsg(m)
	if err != nil && errors.Is(context.Cause(e.ctx), errSlow) {
		return status.Error(codes.DeadlineExceeded, errSlow.Error())
	}
	return err
}

// placeOf is where the other side of a connection is.
func placeOf(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}
	}
	return addrOf(p.Addr)
}
