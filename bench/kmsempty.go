package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/pki"
)

// empty is a handler that does nothing: what gRPC and TLS cost by themselves.
type empty struct {
	wire.UnimplementedKMSServiceServer
}

// Unseal answers with as many bytes as nodes seal.
func (empty) Unseal(context.Context, *wire.Request) (*wire.Response, error) {
	return &wire.Response{Data: make([]byte, keySize)}, nil
}

// serveEmpty serves the empty handler with gRPC's defaults and the certificates of
// a key server's directory, in the same way, until the context ends.
func serveEmpty(ctx context.Context, dir string) error {
	in := func(name string) string { return filepath.Join(dir, name) }
	r, err := pki.NewReloader(pki.Files{Cert: in("server.crt"), Key: in("server.key"), Authorities: in("ca.crt"), ClientAuth: tls.VerifyClientCertIfGiven})
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(r.Server())))
	wire.RegisterKMSServiceServer(s, empty{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, s.Stop)()
	slog.New(slog.NewTextHandler(os.Stderr, nil)).Info("listening", "for", forNodes, "address", l.Addr())
	return s.Serve(l)
}
