package server

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/secret"
)

// hiddenSize is how many bytes the reference server makes up: what Talos seals.
const hiddenSize = 32

// nodes is the service that nodes call.
type nodes struct {
	wire.UnimplementedKMSServiceServer
	*Server
}

// Seal implements the service.
func (n nodes) Seal(ctx context.Context, r *wire.Request) (*wire.Response, error) {
	defer clear(r.GetData())
	return n.admitted(ctx, "seal", r, func(req keeper.Request) ([]byte, error) {
		data := secret.Copy(r.GetData())
		defer data.Wipe()
		blob, err := n.o.Keeper.Seal(ctx, req, data)
		n.count.answered("seal", err)
		return blob, err
	})
}

// Unseal implements the service. The codec wipes the answer after it was encoded.
func (n nodes) Unseal(ctx context.Context, r *wire.Request) (*wire.Response, error) {
	return n.admitted(ctx, "unseal", r, func(req keeper.Request) ([]byte, error) {
		data, err := n.o.Keeper.Unseal(ctx, req, r.GetData())
		n.count.answered("unseal", err)
		if err != nil {
			return n.hide(err)
		}
		defer n.o.Keeper.Release(data)
		return append(make([]byte, 0, data.Len()), data.Bytes()...), nil
	})
}

// hide turns a refusal into what the reference server would say, if that is
// wanted. Trouble of the server, a limit and a malformed request are said as they
// are, as there.
func (n nodes) hide(err error) ([]byte, error) {
	if !n.o.OracleHiding {
		return nil, err
	}
	switch keeper.CodeOf(err) {
	case keeper.Denied, keeper.Revoked, keeper.Pending, keeper.Frozen:
		made := make([]byte, hiddenSize)
		rand.Read(made)
		return made, nil
	}
	return nil, err
}

// admitted waits for the request's turn, checks certificates and asks the keeper.
func (n nodes) admitted(ctx context.Context, op string, r *wire.Request, ask func(keeper.Request) ([]byte, error)) (*wire.Response, error) {
	begin, c := time.Now(), callerOf(ctx)
	if err := n.queue.enter(ctx, sourceOf(c.source)); err != nil {
		return nil, n.notAdmitted(op, err)
	}
	admitted := time.Now()
	defer func() { n.queue.leave(time.Since(admitted)) }()
	n.count.waited.observe(admitted.Sub(begin))
	req, err := n.prove(c, op, r.GetNodeUuid())
	if err != nil {
		return nil, err
	}
	data, err := ask(req)
	if err == nil {
		return &wire.Response{Data: data}, nil
	}
	if keeper.CodeOf(err) == keeper.Unavailable {
		n.log.Error("a node got no answer", "op", op, "source", c.source, "error", err)
	}
	return nil, answer(err)
}

func (n nodes) notAdmitted(op string, err error) error {
	if errors.Is(err, errOverload) {
		n.count.overload.Add(1)
		n.count.outcome(op, "overload")
		return refuse(codes.ResourceExhausted, "overload", "too many requests at once", n.queue.retryAfter())
	}
	return status.FromContextError(err).Err()
}
