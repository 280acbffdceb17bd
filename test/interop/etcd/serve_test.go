package etcd_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	kmswire "github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/test/interop/served"
)

// certificates makes an authority and what it issues for etcd and its clients, with
// the commands that users have.
func certificates(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	for _, words := range []string{
		"pki ca --name etcd --out ca",
		"pki cert --server --client --host 127.0.0.1 --out etcd",
		"pki cert --client --name kms --out kms",
	} {
		cmd := exec.Command(program, strings.Fields(words)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", words, err, out)
		}
	}
	return dir
}

// startSecure starts one member that wants certificates of its clients, and
// returns it and its address; at is where, "" for anywhere.
func startSecure(t *testing.T, dir, data string, at url.URL) *embed.Etcd {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "secure", data
	cfg.LogLevel, cfg.LogOutputs = "fatal", []string{"/dev/null"}
	cfg.TickMs, cfg.ElectionMs = 50, 500
	peer := free(t)
	at.Scheme = "https"
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{at}, []url.URL{at}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = "secure=" + peer.String()
	in := func(name string) string { return filepath.Join(dir, name) }
	tls := &cfg.ClientTLSInfo
	tls.CertFile, tls.KeyFile, tls.TrustedCAFile, tls.ClientCertAuth = in("etcd.crt"), in("etcd.key"), in("ca.crt"), true
	m, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	select {
	case <-m.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		t.Fatal("etcd does not get ready")
	}
	return m
}

// replicas are two directories of one key server, whose nodes are in etcd.
func replicas(t *testing.T, program, certs string, at url.URL) (a, b *served.Server) {
	t.Helper()
	a, b = served.New(t, program), served.New(t, program)
	for _, name := range []string{"ca.crt", "server.crt", "server.key", "kek.json", "kek.key"} {
		text, err := os.ReadFile(a.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(b.Path(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(certs, name) }
	for _, s := range []*served.Server{a, b} {
		s.Set(t, "\nstore: nodes.db\n", "\nstore:\n  etcd:\n    endpoints: [\"https://"+at.Host+"\"]\n    certificate: "+in("kms.crt")+
			"\n    key: "+in("kms.key")+"\n    authorities: "+in("ca.crt")+"\n    timeout: 2s\n")
	}
	return a, b
}

func operator(t *testing.T, s *served.Server) kmswire.AdminClient {
	t.Helper()
	pair, err := pki.ReadPair(s.Path("admin.crt"), s.Path("admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	config := s.TLS(t)
	config.Certificates = []tls.Certificate{cert}
	cc, err := grpc.NewClient("passthrough:///"+s.Address("operators"), grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return kmswire.NewAdminClient(cc)
}

func nodesOf(t *testing.T, s *served.Server) kmswire.KMSServiceClient {
	t.Helper()
	cc := s.Connect(t, "")
	t.Cleanup(func() { cc.Close() })
	return kmswire.NewKMSServiceClient(cc)
}

// TestServeReplicas: two processes of cryptctl kms serve on one etcd that asks for
// client certificates. They start before etcd does, answer when it is there, open
// what the other one sealed, and obey its revocation within a second.
func TestServeReplicas(t *testing.T) {
	program, err := served.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	certs, at := certificates(t, program), free(t)
	a, b := replicas(t, program, certs, at)
	a.Start(t)
	defer a.Kill() // before etcd, which waits for its clients to go
	b.Start(t)
	defer b.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ask := &kmswire.Request{NodeUuid: node, Data: []byte("the data of a node")}
	if _, err := nodesOf(t, a).Seal(ctx, ask); status.Code(err) != codes.Unavailable {
		t.Fatalf("without etcd: %v", err)
	}
	if up := a.Metric(t, `cryptctl_kms_part_up{part="store"}`); up != 0 {
		t.Errorf("without etcd the store is %v", up)
	}

	time.Sleep(3 * time.Second) // attempts to connect get rarer
	startSecure(t, certs, t.TempDir(), at)
	begin := time.Now()
	if _, err := client(t, &cluster{t: t, configs: []*embed.Config{{ListenClientUrls: []url.URL{at}}}}).Get(short(t), "x"); err == nil {
		t.Error("etcd answers without a certificate")
	}
	sealed := sealEventually(t, ctx, nodesOf(t, a), ask)
	took := time.Since(begin)
	t.Logf("answered %v after etcd was ready", took.Round(time.Millisecond))
	if took > 10*time.Second {
		t.Error("that is too long")
	}
	if up := a.Metric(t, `cryptctl_kms_part_up{part="store"}`); up != 1 {
		for range 100 { // it is looked at once in a second
			time.Sleep(50 * time.Millisecond)
			if up = a.Metric(t, `cryptctl_kms_part_up{part="store"}`); up == 1 {
				break
			}
		}
		if up != 1 {
			t.Errorf("with etcd the store is %v", up)
		}
	}
	other := nodesOf(t, b)
	got, err := other.Unseal(ctx, &kmswire.Request{NodeUuid: node, Data: sealed})
	if err != nil || !bytes.Equal(got.GetData(), ask.GetData()) {
		t.Fatalf("unsealed by the other one: %v", err)
	}

	if _, err := operator(t, a).RevokeNode(ctx, &kmswire.RevokeNodeRequest{Node: node, Reason: "lost"}); err != nil {
		t.Fatal(err)
	}
	for revoked := time.Now(); ; {
		asked := time.Since(revoked)
		_, err := other.Unseal(ctx, &kmswire.Request{NodeUuid: node, Data: sealed})
		if status.Code(err) == codes.PermissionDenied {
			t.Logf("refused by the other one %v after the revocation", asked.Round(time.Millisecond))
			break
		}
		if err != nil || asked > time.Second {
			t.Fatalf("%v after the revocation: %v", asked, err)
		}
	}
	for _, s := range []*served.Server{a, b} {
		if strings.Contains(s.Log(), "without TLS") {
			t.Errorf("etcd is asked in plaintext: %s", s.Log())
		}
		if _, err := os.Stat(s.Path("nodes.db")); err == nil {
			t.Error("there is a file for nodes, too")
		}
	}
}

func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

func sealEventually(t *testing.T, ctx context.Context, c kmswire.KMSServiceClient, ask *kmswire.Request) []byte {
	t.Helper()
	for {
		r, err := c.Seal(ctx, ask)
		if err == nil {
			return r.GetData()
		}
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
