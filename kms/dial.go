package kms

import (
	"crypto/tls"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"

	"github.com/cryptctl/cryptctl/kms/wire"
)

const (
	// maxMessage bounds an answer in bytes: a sealed key, and room.
	maxMessage = 16 << 10
	// maxHeaders bounds the headers of an answer in bytes, its error included.
	maxHeaders = 16 << 10
)

// Dial makes a connection to an endpoint, which connects when it is first used.
// The caller closes it. It goes through the proxy that the environment names
// (HTTPS_PROXY, NO_PROXY), as all programs with gRPC do. TLS is 1.3 unless config
// names another minimum; config is not used for a plaintext endpoint.
//
// There is no keepalive: a connection is for one call, which has a deadline.
func Dial(e Endpoint, config *tls.Config, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if !e.Plaintext() {
		if config = config.Clone(); config == nil {
			config = &tls.Config{}
		}
		if config.MinVersion == 0 {
			config.MinVersion = tls.VersionTLS13
		}
		creds = credentials.NewTLS(config)
	}
	cc, err := grpc.NewClient(e.target(), append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(dialer),
		// What a name server says is not asked for how to call a key server, and
		// when to try again is decided here.
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec{})),
		grpc.WithWriteBufferSize(0),
		grpc.WithReadBufferSize(0),
	}, options...)...)
	if err != nil {
		return nil, fmt.Errorf("key server %s: %w", e, err)
	}
	return cc, nil
}

// QuietGRPC turns off gRPC's own log, which otherwise writes errors to stderr. It
// is for the first lines of a program's main: gRPC wants it before anything else.
func QuietGRPC() {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
}
