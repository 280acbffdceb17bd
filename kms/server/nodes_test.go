package server_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/server"
)

func operator() keeper.Operator { return keeper.Operator{Name: "test"} }

// TestEndToEnd: what our provider had sealed opens, also after a restart, and for
// no other node.
func TestEndToEnd(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, policy.Rules{Enrol: policy.Open})
	r := start(t, b, nil)
	p := provider(t, r.nodes, nodeA, nil)
	pass, token := enroll(t, p)
	opens(t, p, token, pass)
	r.stop()
	b.close()

	b = open(t, dir, policy.Rules{Enrol: policy.Open})
	defer b.close()
	r = start(t, b, nil)
	defer r.stop()
	opens(t, provider(t, r.nodes, nodeA, nil), token, pass)
	if _, err := provider(t, r.nodes, nodeB, nil).Recover(t.Context(), keys.Request{}, token); keys.Class(err) != keys.ErrDenied {
		t.Errorf("for another node: %v", err)
	}
}

// TestRefusals: what a node is told, and what our provider makes of it.
func TestRefusals(t *testing.T) {
	r := fresh(t, nil)
	k, ctx := r.keeper, t.Context()
	p := provider(t, r.nodes, nodeA, within300)
	_, token := enroll(t, p)
	denied, unavailable := keys.ErrDenied, keys.ErrUnavailable
	for _, c := range []struct {
		name   string
		change func() error
		code   codes.Code
		class  error
		text   string
	}{
		{"frozen", func() error { return k.Freeze(ctx, operator(), nodeA) }, codes.FailedPrecondition, denied, "is frozen"},
		{"revoked", func() error { return k.Revoke(ctx, operator(), nodeA) }, codes.PermissionDenied, denied, "is revoked"},
		{"ended", func() error {
			return k.Approve(ctx, operator(), nodeA, keeper.Approval{Until: time.Now().Add(-time.Hour), Reinstate: true})
		}, codes.FailedPrecondition, denied, "an operator's approval"},
		{"limited", func() error {
			err := k.Approve(ctx, operator(), nodeA, keeper.Approval{Limit: policy.Limit{PerHour: 60, Burst: 1}})
			_, first := p.Recover(ctx, keys.Request{}, token)
			return errors.Join(err, first)
		}, codes.ResourceExhausted, unavailable, "too many unseals"},
		{"forgotten", func() error { _, err := k.Forget(ctx, operator(), nodeA, nodeA); return err }, codes.PermissionDenied, denied, "denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.change(); err != nil {
				t.Fatal(err)
			}
			_, err := p.Recover(t.Context(), keys.Request{}, token)
			e, _ := errors.AsType[*kms.Error](err)
			if e == nil || e.Code != c.code || keys.Class(err) != c.class || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v", err)
			}
			if wait := c.code == codes.ResourceExhausted; e != nil && wait != (e.RetryAfter > 0 && e.RetryAfter <= time.Minute) {
				t.Errorf("to come back after %s", e.RetryAfter)
			}
		})
	}
}

func within300(o *kms.Options) { o.Budget = 300 * time.Millisecond }

// TestPending: the first seal registers, an approval lets in.
func TestPending(t *testing.T) {
	b := open(t, t.TempDir(), policy.Rules{})
	defer b.close()
	r := start(t, b, nil)
	defer r.stop()
	p := provider(t, r.nodes, nodeA, nil)
	_, _, err := p.Enroll(t.Context(), keys.Request{})
	if keys.Class(err) != keys.ErrDenied || !strings.Contains(err.Error(), "waits for an operator's approval") {
		t.Errorf("before: %v", err)
	}
	if err := b.keeper.Approve(t.Context(), operator(), nodeA, keeper.Approval{}); err != nil {
		t.Fatal(err)
	}
	pass, token := enroll(t, p)
	opens(t, p, token, pass)
}

// TestMalformed: what cannot be a request is said to be none.
func TestMalformed(t *testing.T) {
	r := fresh(t, nil)
	cc := plain(t, r.nodes, "")
	sealed, err := seal(within(t), cc, nodeA, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		node string
		data []byte
		code codes.Code
	}{
		"no node":        {"", sealed, codes.InvalidArgument},
		"no UUID":        {"../../etc/passwd", sealed, codes.InvalidArgument},
		"empty":          {nodeA, nil, codes.InvalidArgument},
		"noise":          {nodeA, []byte("noise"), codes.InvalidArgument},
		"reference blob": {nodeA, make([]byte, 60), codes.InvalidArgument},
		"flipped":        {nodeA, flipped(sealed), codes.PermissionDenied},
		"other node":     {nodeB, sealed, codes.PermissionDenied},
		"too long":       {nodeA, make([]byte, 9<<10), codes.ResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := unseal(within(t), cc, c.node, c.data)
			if status.Code(err) != c.code || len(data) > 0 {
				t.Errorf("%d bytes, %v", len(data), err)
			}
		})
	}
	if _, err := seal(within(t), cc, nodeA, make([]byte, blob.MaxData+1)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("too much data: %v", err)
	}
}

func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)-1] ^= 1
	return b
}

// TestTrouble: a cause inside of the server stays there.
func TestTrouble(t *testing.T) {
	r := fresh(t, nil)
	p := provider(t, r.nodes, nodeA, within300)
	_, token := enroll(t, p)
	if err := r.log.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := p.Recover(t.Context(), keys.Request{}, token)
	if keys.Class(err) != keys.ErrUnavailable || !strings.Contains(err.Error(), "audit log is not available") || strings.Contains(err.Error(), "closed") {
		t.Errorf("%v", err)
	}
	if r.Ready(t.Context()) == nil {
		t.Error("the server says that it is ready")
	}
}

// TestOracleHiding: refusals of unseals look like the reference server's.
func TestOracleHiding(t *testing.T) {
	r := fresh(t, func(o *server.Options) { o.OracleHiding = true })
	cc := plain(t, r.nodes, "")
	ctx := within(t)
	value := []byte("32 bytes that a node has sealed.")
	sealed, err := seal(ctx, cc, nodeA, value)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := unseal(ctx, cc, nodeA, sealed); err != nil || !bytes.Equal(got, value) {
		t.Fatalf("%q, %v", got, err)
	}
	hidden := func(name, node string, data []byte) {
		t.Helper()
		a, err := unseal(ctx, cc, node, data)
		b, err2 := unseal(ctx, cc, node, data)
		if err != nil || err2 != nil || len(a) != 32 || len(b) != 32 || bytes.Equal(a, value) || bytes.Equal(a, b) {
			t.Errorf("%s: %x, %x, %v, %v", name, a, b, err, err2)
		}
	}
	hidden("flipped", nodeA, flipped(sealed))
	hidden("other node", nodeB, sealed)
	if err := r.keeper.Revoke(ctx, operator(), nodeA); err != nil {
		t.Fatal(err)
	}
	hidden("revoked", nodeA, sealed)
	if _, err := unseal(ctx, cc, nodeA, []byte("noise")); status.Code(err) != codes.InvalidArgument {
		t.Errorf("malformed: %v", err)
	}
	if _, err := seal(ctx, cc, nodeA, value); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a seal: %v", err)
	}
	denied := 0
	for rec, err := range audit.Read(r.dir+"/audit", 1) {
		if err != nil {
			t.Fatal(err)
		}
		if rec.Op == "unseal" && rec.Outcome != "allowed" {
			denied++
		}
	}
	if denied != 7 {
		t.Errorf("%d refusals on record", denied)
	}
}

// TestCertificates: who needs a certificate, and for whom one counts.
func TestCertificates(t *testing.T) {
	ca := newParty(t)
	modes := map[string]server.Clients{"optional": {}, "required": {Required: true}, "for A": {Nodes: []blob.Node{nodeA}}}
	for mode, clients := range modes {
		t.Run(mode, func(t *testing.T) {
			r := fresh(t, func(o *server.Options) { ca.secure(t)(o); o.Clients = clients })
			for _, c := range []struct {
				node, cert string
				want       map[string]bool
			}{
				{nodeA, "", map[string]bool{"optional": true}},
				{nodeB, "", map[string]bool{"optional": true, "for A": true}},
				{nodeA, nodeA, map[string]bool{"optional": true, "required": true, "for A": true}},
				{nodeA, strings.ToUpper(nodeA), map[string]bool{"optional": true, "required": true, "for A": true}},
				{nodeA, nodeB, nil},
				{nodeB, nodeA, nil},
				{nodeA, "someone", map[string]bool{"optional": true}},
			} {
				p := provider(t, r.nodes, c.node, ca.as(t, c.cert))
				pass, token, err := p.Enroll(t.Context(), keys.Request{})
				if (err == nil) != c.want[mode] || err != nil && keys.Class(err) != keys.ErrDenied {
					t.Errorf("node %s with the certificate of %q: %v", c.node, c.cert, err)
				}
				if err == nil {
					opens(t, p, token, pass)
					pass.Wipe()
				}
			}
			// A certificate of another authority does not even shake hands.
			other := newParty(t)
			_, _, err := provider(t, r.nodes, nodeA, func(o *kms.Options) { other.as(t, nodeA)(o); o.Authorities = ca.ca; o.Budget = 500 * time.Millisecond }).Enroll(t.Context(), keys.Request{})
			if keys.Class(err) != keys.ErrUnavailable {
				t.Errorf("another authority: %v", err)
			}
		})
	}
}

// TestRecorded: refusals of the front are on record, and so is whose certificate
// it was.
func TestRecorded(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, func(o *server.Options) { ca.secure(t)(o); o.Clients.Required = true })
	_, _, err := provider(t, r.nodes, nodeA, ca.as(t, nodeB)).Enroll(t.Context(), keys.Request{})
	if keys.Class(err) != keys.ErrDenied {
		t.Fatal(err)
	}
	enroll(t, provider(t, r.nodes, nodeA, ca.as(t, nodeA)))
	var got []audit.Event
	for rec, err := range audit.Read(r.dir+"/audit", 1) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, rec.Event)
	}
	if len(got) != 2 || got[0].Outcome != "denied" || got[0].Code != "other-node" || got[0].Actor != nodeB || got[0].Node != nodeA || got[0].Address != "127.0.0.1" ||
		got[1].Outcome != "allowed" || got[1].Actor != nodeA {
		t.Errorf("%+v", got)
	}
}

// TestVersions: TLS 1.3 only, and no plaintext where there is TLS.
func TestVersions(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	_, err := tls.Dial("tcp", r.nodes, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.2: %v", err)
	}
	if _, err := seal(within(t), plain(t, r.nodes, ""), nodeA, make([]byte, 32)); status.Code(err) != codes.Unavailable {
		t.Errorf("plaintext: %v", err)
	}
}

// TestOptions: what must not be served is not.
func TestOptions(t *testing.T) {
	b := open(t, t.TempDir(), policy.Rules{})
	defer b.close()
	ca := newParty(t)
	config := ca.config(t, tls.VerifyClientCertIfGiven)
	for name, o := range map[string]server.Options{
		"keeper is needed":       {Plaintext: true},
		"ask for plaintext":      {Keeper: b.keeper},
		"exclude each other":     {Keeper: b.keeper, Plaintext: true, TLS: config},
		"none in plaintext":      {Keeper: b.keeper, Plaintext: true, Clients: server.Clients{Required: true}},
		"operators are known":    {Keeper: b.keeper, Plaintext: true, AdminOnNodes: true},
		"certificates are asked": {Keeper: b.keeper, Plaintext: true, Clients: server.Clients{Nodes: []blob.Node{nodeA}}},
	} {
		if s, err := server.New(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
			if s != nil {
				s.Drain(t.Context())
			}
		}
	}
	r := start(t, b, nil)
	if err := r.ServeOperators(listen(t)); err == nil {
		t.Error("operators are served without TLS")
	}
}

// TestReload: a new certificate is used without a restart, for new connections.
func TestReload(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	serial := func() string {
		t.Helper()
		c, err := tls.Dial("tcp", r.nodes, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	if again := serial(); again != before {
		t.Fatalf("%s, then %s", before, again)
	}
	p := provider(t, r.nodes, nodeA, ca.as(t, ""))
	pass, token := enroll(t, p)
	ca.serverPair(t)
	if after := serial(); after == before {
		t.Error("the certificate is the old one")
	}
	opens(t, p, token, pass)
}
