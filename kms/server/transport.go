package server

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

const (
	operatorConnections = 64
	perConnection       = 128 // streams
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
	return append(s.options(),
		grpc.Creds(creds),
		grpc.MaxRecvMsgSize(size),
		grpc.InTapHandle(s.stream),
		// Ten thousand connections that are used once: little memory for each.
		grpc.ReadBufferSize(4<<10), grpc.WriteBufferSize(4<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 2 * time.Minute, Time: time.Minute, Timeout: 20 * time.Second}),
	)
}

// operatorOptions are those of the listener of operators.
func (s *Server) operatorOptions() []grpc.ServerOption {
	return append(s.options(),
		grpc.Creds(credentials.NewTLS(guard(s.o.AdminTLS, true))),
		grpc.MaxRecvMsgSize(maxAdminMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
	)
}

func (s *Server) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		experimental.BufferPool(wiping{mem.DefaultBufferPool()}),
		grpc.MaxConcurrentStreams(perConnection),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.ConnectionTimeout(s.limits.Handshake),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.streaming),
	}
}

// stream bounds the streams of nodes, in number and in time, before anything is
// kept for one: a client may open them and send nothing.
func (s *Server) stream(ctx context.Context, _ *tap.Info) (context.Context, error) {
	if s.count.streams.Add(1) > int64(s.limits.Streams) {
		s.count.streams.Add(-1)
		s.count.overload.Add(1)
		return nil, refuse(codes.ResourceExhausted, "overload", "too many requests at once", s.queue.retryAfter())
	}
	ctx, cancel := context.WithTimeout(ctx, s.limits.Stream)
	context.AfterFunc(ctx, func() { // at the end of the stream, at the latest
		cancel()
		s.count.streams.Add(-1)
	})
	return ctx, nil
}

// unary judges operators by their role, and counts.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (res any, err error) {
	begin := time.Now()
	if err = s.mayCall(ctx, info.FullMethod); err == nil {
		res, err = handler(ctx, req)
	}
	s.count.called(info.FullMethod, status.Code(err), time.Since(begin))
	return res, err
}

// streaming is the same for calls with streams, which end when the server does.
func (s *Server) streaming(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	begin := time.Now()
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	err := s.mayCall(ctx, info.FullMethod)
	if err == nil {
		err = handler(srv, ending{ss, ctx})
	}
	if err != nil && s.draining.Err() != nil {
		err = status.Error(codes.Unavailable, "the key server is shutting down")
	}
	s.count.called(info.FullMethod, status.Code(err), time.Since(begin))
	return err
}

// ending is a stream with a context of its own.
type ending struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (e ending) Context() context.Context { return e.ctx }
