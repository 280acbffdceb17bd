package server_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"github.com/cryptctl/cryptctl/kms/wire"
)

// empty answers with nothing: what gRPC itself costs.
type empty struct {
	wire.UnimplementedKMSServiceServer
}

func (empty) Unseal(context.Context, *wire.Request) (*wire.Response, error) {
	return &wire.Response{Data: make([]byte, 32)}, nil
}

// asked has many callers on a few connections ask for the same.
func asked(b *testing.B, address, node string, blob []byte) {
	var all []*grpc.ClientConn
	for range 8 {
		all = append(all, plain(b, address, ""))
	}
	var next atomic.Int64
	b.SetParallelism(256)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		cc := all[int(next.Add(1))%len(all)]
		for p.Next() {
			if _, err := unseal(context.Background(), cc, node, blob); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkEmpty is an empty unary handler, to hold BenchmarkUnseal against.
func BenchmarkEmpty(b *testing.B) {
	s := grpc.NewServer()
	wire.RegisterKMSServiceServer(s, empty{})
	l := listen(b)
	go func() { _ = s.Serve(l) }()
	b.Cleanup(s.Stop)
	asked(b, l.Addr().String(), nodeA, make([]byte, 69))
}

// BenchmarkUnseal is a whole unseal, with its synced record.
func BenchmarkUnseal(b *testing.B) {
	r := fresh(b, nil)
	sealed, err := seal(b.Context(), plain(b, r.nodes, ""), nodeA, make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	asked(b, r.nodes, nodeA, sealed)
}

// BenchmarkStorm is the boot of as many nodes as it has rounds, all at once: each
// makes a connection of its own and unseals. None is refused.
func BenchmarkStorm(b *testing.B) {
	r := fresh(b, nil)
	sealed, err := seal(b.Context(), plain(b, r.nodes, ""), nodeA, make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	var all sync.WaitGroup
	for range b.N {
		all.Go(func() {
			cc := plain(b, r.nodes, "")
			if _, err := unseal(context.Background(), cc, nodeA, sealed); err != nil {
				b.Error(err)
			}
			cc.Close()
		})
	}
	all.Wait()
}
