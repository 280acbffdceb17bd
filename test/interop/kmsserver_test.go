package interop_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/server"
	"github.com/cryptctl/cryptctl/kms/store/bolt"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/secret"
)

// startOurs runs our key server, in plaintext or with TLS, for whoever asks.
func startOurs(t *testing.T, programs string, plaintext bool) reference {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	log, err := audit.Open(in("audit"), audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store, err := bolt.Open(in("nodes.db"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := kek.Create(t.Context(), in("kek.json"), kek.Secret{KeyFile: secret.Random(32)})
	if err != nil {
		t.Fatal(err)
	}
	k, err := keeper.New(t.Context(), keeper.Options{Store: store, KEK: key, Audit: log, Rules: policy.Rules{Enrol: policy.Open}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := reference{"grpc://" + l.Addr().String(), "", programs}
	o := server.Options{Keeper: k, Audit: log, Plaintext: plaintext}
	if !plaintext {
		r.endpoint, r.ca = "https://"+l.Addr().String(), in("ca.crt")
		o.TLS = ownTLS(t, in)
	}
	s, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.ServeNodes(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s.Drain(ctx)
		k.Close()
		key.Close()
		if err := errors.Join(<-served, store.Close(), log.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// ownTLS is the server's side under an authority that is written to ca.crt.
func ownTLS(t *testing.T, in func(string) string) *tls.Config {
	t.Helper()
	a, ca, err := pki.NewAuthority("interop", 0)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := a.Issue(pki.Request{Name: "kms", Server: true, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ca.Write(in("ca.crt"), in("ca.key")), pair.Write(in("tls.crt"), in("tls.key"))); err != nil {
		t.Fatal(err)
	}
	r, err := pki.NewReloader(pki.Files{Cert: in("tls.crt"), Key: in("tls.key"), Authorities: in("ca.crt"), ClientAuth: tls.VerifyClientCertIfGiven})
	if err != nil {
		t.Fatal(err)
	}
	return r.Server()
}

// TestKMSServer: a Talos node that was not changed seals and unseals at our server,
// and gets from our provider's token what our provider gets.
func TestKMSServer(t *testing.T) {
	programs := build(t)
	for name, plaintext := range map[string]bool{"plaintext": true, "TLS": false} {
		t.Run(name, func(t *testing.T) {
			r := startOurs(t, programs, plaintext)
			value := secret.Random(32)
			defer value.Wipe()
			sealed := talosAsks(t, "seal", r, value.Bytes())
			if got := talosAsks(t, "unseal", r, sealed); !bytes.Equal(got, value.Bytes()) {
				t.Errorf("%d bytes, not those that were sealed", len(got))
			}
			if bytes.Contains(sealed, value.Bytes()) {
				t.Error("the blob holds the key")
			}
			pass, token, err := r.ours(t).Enroll(t.Context(), keys.Request{})
			if err != nil {
				t.Fatal(err)
			}
			defer pass.Wipe()
			again, err := r.ours(t).Recover(t.Context(), keys.Request{}, token)
			if err != nil || !again.Equal(pass) {
				t.Errorf("our provider: the same %v, %v", again.Equal(pass), err)
			}
			again.Wipe()
		})
	}
}
