package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"

	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/pki"
)

// kmsTarget is the key server that an operator's command is about, and who asks:
// what kms init made, unless it is said.
type kmsTarget struct {
	dir, server, ca, certificate, key, name string
}

// group adds the flags to a group of commands.
func (k *kmsTarget) group(cmd *cobra.Command) *cobra.Command {
	k.flags(cmd, true)
	return cmd
}

func (k *kmsTarget) flags(cmd *cobra.Command, inherited bool) {
	f := cmd.Flags()
	if inherited {
		f = cmd.PersistentFlags()
	}
	f.StringVar(&k.dir, "dir", kmsDir, "`DIRECTORY` that kms init made; it says what the other flags leave open")
	f.StringVar(&k.server, "server", "", "`HOST:PORT` where the key server answers operators (default: operators.listen of kms.yaml)")
	f.StringVar(&k.ca, "ca", "", "`FILE` with the authority of the server's certificate (default ca.crt in the directory)")
	f.StringVar(&k.certificate, "certificate", "", "`FILE` with the operator's certificate (default admin.crt in the directory)")
	f.StringVar(&k.key, "key", "", "`FILE` with its private key (default admin.key in the directory)")
	f.StringVar(&k.name, "server-name", "", "`NAME` in the server's certificate, if it is not that of --server")
}

// kmsAdmin is a connection to a key server. Its errors are for people.
type kmsAdmin struct {
	wire.AdminClient
	*grpc.ClientConn
}

// dial reads the files and makes the connection, which connects when it is used.
func (k *kmsTarget) dial() (*kmsAdmin, error) {
	address, err := k.address()
	if err != nil {
		return nil, err
	}
	endpoint, err := kms.ParseEndpoint("https://" + address)
	if err != nil || strings.ContainsAny(address, "/@?#") {
		return nil, usageError("--server %q: write HOST:PORT, such as kms.example.com:4051", address)
	}
	config, err := k.tls()
	if err != nil {
		return nil, err
	}
	call := kmsCall{address, config}
	cc, err := kms.Dial(endpoint, config,
		grpc.WithChainUnaryInterceptor(call.unary), grpc.WithChainStreamInterceptor(call.stream),
		grpc.WithReadBufferSize(64<<10),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}))
	if err != nil {
		return nil, err
	}
	return &kmsAdmin{wire.NewAdminClient(cc), cc}, nil
}

// address is where operators are answered.
func (k *kmsTarget) address() (string, error) {
	if k.server != "" {
		return k.server, nil
	}
	path := filepath.Join(k.dir, kmsConfigName)
	c, err := readKMSConfig(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%s is not there; name the directory that kms init made with --dir, or the key server with --server", path)
	}
	if err != nil {
		return "", err
	}
	listen := c.Operators.Listen
	if listen == "" && c.Operators.OnNodesListener {
		listen = c.Nodes.Listen
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("%s: operators.listen: %q is no address where operators are answered; set it, or name the key server with --server", path, listen)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), nil
}

// tls is our side of the connection.
func (k *kmsTarget) tls() (*tls.Config, error) {
	path := func(given, name string) string {
		if given != "" {
			return given
		}
		return filepath.Join(k.dir, name)
	}
	ca, certificate, key := path(k.ca, "ca.crt"), path(k.certificate, "admin.crt"), path(k.key, "admin.key")
	bundle, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("the authority of the key server: %w; give it with --ca", err)
	}
	pool, err := pki.ParsePool(bundle)
	if err != nil {
		return nil, fmt.Errorf("the authority of the key server: %s: %w", ca, err)
	}
	pair, err := pki.ReadPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("the operator's certificate: %w; give it with --certificate and --key", err)
	}
	defer pair.Wipe()
	own, err := pair.TLS()
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", certificate, key, err)
	}
	if end := own.Leaf.NotAfter; time.Now().After(end) {
		return nil, fmt.Errorf("%s: the certificate ended on %s; cryptctl kms renew admin makes a new one, where the authority's key is", certificate, end.UTC().Format(time.DateOnly))
	}
	return &tls.Config{
		RootCAs: pool, ServerName: k.name, MinVersion: tls.VersionTLS13,
		// Shown whatever authorities the server names, so that it says what is wrong.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil },
	}, nil
}

// kmsAsk makes the run of a command that asks a key server: do has the connection,
// and the arguments.
func kmsAsk(k *kmsTarget, do func(*cobra.Command, *kmsAdmin, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, given []string) error {
		a, err := k.dial()
		if err != nil {
			return err
		}
		defer a.Close()
		k.noteEnd(cmd.ErrOrStderr())
		return do(cmd, a, given)
	}
}

// nodeArg reads an argument that names a node.
func nodeArg(text string) (string, error) {
	id, err := blob.ParseNode(text)
	if err != nil {
		return "", usageError("%q names no node: %w", text, err)
	}
	return string(id), nil
}

// maybe is the check of commands with one argument at most.
func maybe(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		return args([]string{what}[:min(len(given), 1)]...)(cmd, given)
	}
}

// reasonFlag adds --reason.
func reasonFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("reason", "", "`TEXT` for the audit log, and kept with the node")
}

// typed wants the name of what will be destroyed: as --confirm said, or typed at a
// terminal.
func typed(cmd *cobra.Command, given, what, name string) error {
	switch {
	case strings.EqualFold(given, name):
		return nil
	case given != "":
		return usageError("--confirm %s is another one than %s; nothing was changed", plain(given), name)
	case !term.IsTerminal(int(os.Stdin.Fd())):
		return usageError("%s; give --confirm %s to do it", what, name)
	}
	err := confirm(cmd, false, what, name)
	if cmd.Context().Err() != nil {
		return errors.New("interrupted; nothing was changed")
	}
	return err
}

// confirmFlag adds --confirm.
func confirmFlag(cmd *cobra.Command, what string) *string {
	return cmd.Flags().String("confirm", "", "do not ask: `"+what+"` once more")
}

// kmsCall turns what gRPC says of calls into errors for people.
type kmsCall struct {
	address string
	tls     *tls.Config
}

// patienceFor is how long a call without a stream may take: one that reads a whole log
// or writes the store anew takes its time.
func patienceFor(method string) time.Duration {
	switch method {
	case wire.Admin_VerifyAudit_FullMethodName, wire.Admin_ForgetNode_FullMethodName,
		wire.Admin_RetireNodeKey_FullMethodName, wire.Admin_RetireKEK_FullMethodName, wire.Admin_PurgeNodes_FullMethodName:
		return 10 * time.Minute
	}
	return 30 * time.Second
}

func (c kmsCall) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, patienceFor(method))
	defer cancel()
	return c.explain(invoke(ctx, method, req, reply, cc, o...))
}

func (c kmsCall) stream(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := streamer(ctx, d, cc, method, o...)
	if err != nil {
		return nil, c.explain(err)
	}
	return kmsStream{s, c}, nil
}

type kmsStream struct {
	grpc.ClientStream
	call kmsCall
}

// RecvMsg implements grpc.ClientStream.
func (s kmsStream) RecvMsg(m any) error { return s.call.explain(s.ClientStream.RecvMsg(m)) }

// kmsRefusal is an error of the server, or of the way to it.
type kmsRefusal struct {
	code codes.Code
	text string
}

func (e *kmsRefusal) Error() string { return e.text }

// refusedAs reports whether an error is one with the code.
func refusedAs(err error, code codes.Code) bool {
	e, ok := errors.AsType[*kmsRefusal](err)
	return ok && e.code == code
}
