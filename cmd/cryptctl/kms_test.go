package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/pki"
)

// freePort is the script command that finds an address where nobody listens.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, 1, "port VAR")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], l.Addr().String())
	ts.Check(l.Close())
}

// kmsNode is the script command that asks a key server as a node does: to seal a
// key into a file, or to open what is in it. It waits for the server. A "!" wants a
// denial.
func kmsNode(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, false, args, 3, 4, "[!] kmsnode seal|unseal URL FILE [CA]")
	o := kms.Options{Endpoints: []string{args[1]}, NodeUUID: nodeUUID, Budget: 8 * time.Second}
	if len(args) == 4 {
		o.Authorities = []byte(ts.ReadFile(args[3]))
	}
	p, err := kms.New(o)
	ts.Check(err)
	file := ts.MkAbs(args[2])
	switch args[0] {
	case "seal":
		pass, token, err := p.Enroll(context.Background(), keys.Request{})
		denied(ts, neg, err)
		if err == nil {
			ts.Check(os.WriteFile(file, append(token, "\n"+string(pass.Bytes())...), 0o600))
		}
	case "unseal":
		token, want, _ := strings.Cut(ts.ReadFile(args[2]), "\n")
		pass, err := p.Recover(context.Background(), keys.Request{}, json.RawMessage(token))
		denied(ts, neg, err)
		if err == nil && string(pass.Bytes()) != want {
			ts.Fatalf("another key")
		}
	}
}

func denied(ts *testscript.TestScript, want bool, err error) {
	if want && keys.Class(err) != keys.ErrDenied || !want && err != nil {
		ts.Fatalf("denied wanted: %v; %v", want, err)
	}
}

// kmsApprove is the script command by which an operator approves the node.
func kmsApprove(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, 2, "kmsapprove ADDRESS DIRECTORY")
	dir := ts.MkAbs(args[1])
	pair, err := pki.ReadPair(dir+"/admin.crt", dir+"/admin.key")
	ts.Check(err)
	cert, err := pair.TLS()
	ts.Check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(ts.ReadFile(args[1] + "/ca.crt")))
	cc, err := grpc.NewClient("passthrough:///"+args[0], grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: pool, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13,
	})))
	ts.Check(err)
	defer cc.Close()
	_, err = wire.NewAdminClient(cc).ApproveNode(context.Background(), &wire.ApproveNodeRequest{Uuid: nodeUUID})
	ts.Check(err)
}

// TestKMSConfig: what kms init writes says the defaults, and mistakes are named.
func TestKMSConfig(t *testing.T) {
	t.Parallel()
	c, err := parseKMSConfig(nil)
	if err != nil || c.Nodes.Listen != ":4050" || c.Policy.Enrol != policy.AllowList || c.Drain != 20*time.Second || c.Store != "nodes.db" {
		t.Errorf("%+v, %v", c, err)
	}
	for text, want := range map[string]string{
		"nodes: {certificates: sometimes}":               "nodes.certificates",
		"nodes: {certificates_for: [me]}":                "nodes.certificates_for[0]",
		"nodes: {lissten: here}":                         "lissten",
		"policy: {networks: [192.0.2.1/24]}":             "host bits",
		"policy: {enrol: everyone}":                      "enrol",
		"policy: {burst: 3}":                             "burst",
		"store: ''":                                      "store: is empty",
		"drain: -1s":                                     "drain",
		"drain: soon":                                    "line 1",
		"store: a.db\n---\nstore: b.db\n":                "more than one document",
		"nodes: {listen: a}\nnodes: {listen: b}":         "nodes",
		"operators: {listen: [x], on_nodes_listener: 7}": "line 1",
	} {
		if _, err := parseKMSConfig([]byte(text)); err == nil || !strings.Contains(strings.ToLower(err.Error()), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if !bytes.Contains([]byte(kmsConfigText), []byte("# ")) || strings.Contains(kmsConfigText, "\t") {
		t.Error("the configuration has no comments, or tabs")
	}
}
