package server

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/wire"
)

// TestDraining: what a client asks on a connection that it was told to leave is not
// answered, but for how the server is.
func TestDraining(t *testing.T) {
	s := &Server{}
	s.draining, s.drain = context.WithCancel(t.Context())
	for _, draining := range []bool{false, true} {
		for method, refused := range map[string]bool{wire.KMSService_Unseal_FullMethodName: draining, healthpb.Health_Check_FullMethodName: false} {
			asked := false
			_, err := gate{Server: s}.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) {
				asked = true
				return nil, nil
			})
			if asked == refused || refused && status.Code(err) != codes.Unavailable {
				t.Errorf("draining %v: %s: %v", draining, method, err)
			}
		}
		s.drain()
	}
}
