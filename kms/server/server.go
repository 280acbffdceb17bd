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

// Server is the front of a key server. It is made by [New].
type Server struct {
	o      Options
	limits Limits
	log    *slog.Logger
	queue  *queue
	count  counts
	health *health.Server

	nodes     *grpc.Server
	operators *grpc.Server // nil without AdminTLS

	draining context.Context // ends when Drain begins
	drain    context.CancelFunc
	done     sync.WaitGroup
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
	s.draining, s.drain = context.WithCancel(context.Background())

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
func (s *Server) ServeNodes(l net.Listener) error { return s.serve(s.nodes, l, s.limits.Connections) }

// ServeOperators answers operators until Drain, or until the listener fails.
func (s *Server) ServeOperators(l net.Listener) error {
	if s.operators == nil {
		return errors.New("key server: operators are known by certificates; give the server one to show them, and the authority of theirs")
	}
	return s.serve(s.operators, l, min(s.limits.Connections, operatorConnections))
}

func (s *Server) serve(g *grpc.Server, l net.Listener, connections int) error {
	err := g.Serve(bound(l, connections, min(s.limits.PerSource, connections), &s.count))
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
	is := healthpb.HealthCheckResponse_SERVING
	if err := s.o.Keeper.Ready(ctx); err != nil {
		is = healthpb.HealthCheckResponse_NOT_SERVING
	}
	for _, name := range []string{"", wire.KMSService_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(name, is)
	}
}
