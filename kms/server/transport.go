package server

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	operatorConnections = 64
	operatorPerSource   = 8
	operatorHandshake   = 3 * time.Second

	idle          = 2 * time.Minute
	maxAgeGrace   = time.Hour // for calls of operators that go on; those of nodes end before
	perConnection = 32        // calls at a time
	window        = 64 << 10  // bytes that may be on their way to us, of a call and of a connection
)

// nodeOptions are those of the listener of nodes.
func (s *Server) nodeOptions() []grpc.ServerOption {
	creds := insecure.NewCredentials()
	if s.o.TLS != nil {
		creds = credentials.NewTLS(guard(s.o.TLS, false))
	}
	size := maxMessage
	if s.o.AdminOnNodes {
		size = maxAdminMessage
	}
	return append(s.options(gate{s, s.o.TLS}),
		grpc.Creds(creds),
		grpc.ConnectionTimeout(s.limits.Handshake),
		grpc.MaxRecvMsgSize(size),
		grpc.NumStreamWorkers(uint32(s.limits.Working)), // a new stack for each call would have to grow
		// Ten thousand connections that are used once: little memory for each.
		grpc.ReadBufferSize(4<<10), grpc.WriteBufferSize(4<<10),
	)
}

// operatorOptions are those of the listener of operators.
func (s *Server) operatorOptions() []grpc.ServerOption {
	return append(s.options(gate{s, s.o.AdminTLS}),
		grpc.Creds(credentials.NewTLS(guard(s.o.AdminTLS, true))),
		grpc.ConnectionTimeout(min(s.limits.Handshake, operatorHandshake)),
		grpc.MaxRecvMsgSize(maxAdminMessage),
	)
}

// options are those of both. Windows that do not grow bound what is kept of what a
// client sends and nobody reads.
func (s *Server) options(g gate) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxConcurrentStreams(perConnection),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(window),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idle, MaxConnectionAge: s.limits.Age, MaxConnectionAgeGrace: maxAgeGrace,
			Time: s.limits.Silence, Timeout: s.limits.Silence / 3,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
		grpc.InTapHandle(g.tap),
		grpc.ChainUnaryInterceptor(g.unary),
		grpc.ChainStreamInterceptor(g.streaming),
	}
}
