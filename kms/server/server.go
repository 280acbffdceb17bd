package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/cryptctl/cryptctl/kms/wire"
)

// ballastSize is address space that counts as heap and takes no memory: Go collects
// a heap when it has doubled, and that of a server with few nodes would be collected
// many times a second. So there may be this much more garbage, at most.
const ballastSize = 64 << 20

// Server is the front of a key server. It is made by [New].
type Server struct {
	o      Options
	limits Limits
	log    *slog.Logger
	queue  *queue
	count  counts
	health *health.Server
	parts  parts

	budgets   budgets
	strangers seldom
	reading   chan struct{} // held by who reads the whole audit log

	nodes     *grpc.Server
	operators *grpc.Server // nil without AdminTLS

	ballast []byte // never touched

	draining context.Context // ends when Drain begins
	drain    context.CancelFunc
	done     sync.WaitGroup

	mu     sync.Mutex
	fronts []*bounded
}

// New returns a server that serves nothing yet. Drain ends it.
func New(o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Server{o: o, limits: o.Limits.withDefaults(), log: o.Log, health: health.NewServer()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.queue = newQueue(s.limits.Working, s.limits.Waiting, s.limits.Wait)
	s.budgets, s.reading = newBudgets(s.limits), make(chan struct{}, 1)
	s.draining, s.drain = context.WithCancel(context.Background())
	s.ballast = make([]byte, ballastSize)

	s.nodes = grpc.NewServer(s.nodeOptions()...)
	wire.RegisterKMSServiceServer(s.nodes, nodes{Server: s})
	if o.AdminOnNodes {
		wire.RegisterAdminServer(s.nodes, admin{Server: s})
	}
	s.common(s.nodes)
	if o.AdminTLS != nil {
		s.operators = grpc.NewServer(s.operatorOptions()...)
		wire.RegisterAdminServer(s.operators, admin{Server: s})
		s.common(s.operators)
	}
	s.check()
	s.done.Go(s.watch)
	return s, nil
}

// common registers what both listeners have.
func (s *Server) common(g *grpc.Server) {
	healthpb.RegisterHealthServer(g, s.health)
	reflection.Register(g)
}

// ServeNodes answers nodes until Drain, or until the listener fails.
func (s *Server) ServeNodes(l net.Listener) error {
	return s.serve(s.nodes, bound(l, s.limits.Connections, s.limits.PerSource, &s.count))
}

// ServeOperators answers operators until Drain, or until the listener fails.
func (s *Server) ServeOperators(l net.Listener) error {
	if s.operators == nil {
		return errors.New("key server: operators are known by certificates; give the server one to show them, and the authority of theirs")
	}
	return s.serve(s.operators, bound(l, min(s.limits.Connections, operatorConnections), min(s.limits.PerSource, operatorPerSource), &s.count))
}

func (s *Server) serve(g *grpc.Server, b *bounded) error {
	s.mu.Lock()
	s.fronts = append(s.fronts, b)
	s.mu.Unlock()
	err := g.Serve(b)
	if errors.Is(err, grpc.ErrServerStopped) || s.draining.Err() != nil {
		return nil
	}
	return err
}

// Drain ends the server: no new connection and no new call, those that are under
// way get their answers, as long as ctx lasts. Calls that have no end by themselves
// are cut. When it returns nothing of the server runs.
func (s *Server) Drain(ctx context.Context) {
	s.health.Shutdown()
	s.drain()
	s.mu.Lock()
	for _, b := range s.fronts {
		b.shares.end() // gRPC would wait for handshakes, also of who says nothing
	}
	s.mu.Unlock()
	var all sync.WaitGroup
	for _, g := range []*grpc.Server{s.nodes, s.operators} {
		if g == nil {
			continue
		}
		all.Go(func() {
			stop := context.AfterFunc(ctx, g.Stop)
			g.GracefulStop()
			stop()
			g.Stop() // waits for handlers, should the context have ended
		})
	}
	all.Wait()
	s.done.Wait()
}

// Ready says why no node can be answered.
func (s *Server) Ready(ctx context.Context) error {
	if s.draining.Err() != nil {
		return errors.New("the key server is shutting down")
	}
	return s.o.Keeper.Ready(ctx)
}

const healthEvery = time.Second

// watch keeps what the health service says up to date.
func (s *Server) watch() {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.draining.Done():
			return
		case <-tick.C:
			s.check()
		}
	}
}

func (s *Server) check() {
	ctx, cancel := context.WithTimeout(s.draining, healthEvery)
	defer cancel()
	now := s.o.Keeper.Health(ctx)
	if s.draining.Err() == nil {
		s.parts.saw(s.log, now)
	}
	is := healthpb.HealthCheckResponse_SERVING
	if err := now.Ready(); err != nil {
		is = healthpb.HealthCheckResponse_NOT_SERVING
	}
	for _, name := range []string{"", wire.KMSService_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(name, is)
	}
}
