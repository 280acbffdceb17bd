package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/google/uuid"
	"google.golang.org/grpc"

	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/pki"
)

const (
	keySize  = 32 // bytes that a node seals
	forNodes = "nodes"
)

// fleet is a key server's directory, and nodes that are to seal there.
type fleet struct {
	dir       string
	roots     *x509.CertPool
	authority *pki.Authority
	nodes     []caller
	answers   uint64 // of the key server, to anyone
}

const fleetConfig = `nodes: {listen: "127.0.0.1:0"}
operators: {listen: ""}
metrics: {listen: "127.0.0.1:0"}
policy: {enrol: open}
`

// newFleet makes a key server's directory, and names for n nodes.
func (b *bench) newFleet(ctx context.Context, n int) (*fleet, error) {
	f := &fleet{dir: b.path("kms"), nodes: make([]caller, n)}
	if _, err := command(b.cryptctl, "kms", "init", "--host", "127.0.0.1", f.dir).run(ctx); err != nil {
		return nil, err
	}
	if err := os.WriteFile(f.in("bench.yaml"), []byte(fleetConfig), 0o600); err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(f.in("ca.crt"))
	if err != nil {
		return nil, err
	}
	if f.roots, err = pki.ParsePool(ca); err != nil {
		return nil, err
	}
	for i := range f.nodes {
		f.nodes[i].uuid = uuid.NewString()
	}
	f.authority, err = pki.ReadAuthority(f.in("ca.crt"), f.in("ca.key"))
	return f, err
}

func (f *fleet) in(name string) string { return filepath.Join(f.dir, name) }

// certify gives the first n nodes certificates that name them.
func (f *fleet) certify(n int) error {
	for i := range f.nodes[:n] {
		pair, err := f.authority.Issue(pki.Request{Name: f.nodes[i].uuid, Client: true})
		if err != nil {
			return err
		}
		cert, err := pair.TLS()
		pair.Wipe()
		if err != nil {
			return err
		}
		f.nodes[i].cert = &cert
	}
	return nil
}

// startKeyServer and startEmpty start the two sides.
func (b *bench) startKeyServer(ctx context.Context, f *fleet) (*served, error) {
	return startServer(ctx, "metrics", b.cryptctl, "kms", "serve", "--config", f.in("bench.yaml"))
}

func (b *bench) startEmpty(ctx context.Context, f *fleet) (*served, error) {
	return startServer(ctx, forNodes, b.self, "-empty", f.dir)
}

// answered counts the answers of the key server, which is the first side.
func (f *fleet) answered(side, n int) {
	if side == 0 {
		f.answers += uint64(n)
	}
}

// bare are the nodes without certificates, as Talos' nodes come.
func (f *fleet) bare() []caller {
	all := slices.Clone(f.nodes)
	for i := range all {
		all[i].cert = nil
	}
	return all
}

// dialer is for a server of the fleet.
func (f *fleet) dialer(s *served) dialer { return dialer{address: s.at[forNodes], roots: f.roots} }

// seal has all nodes seal a key of their own.
func (f *fleet) seal(ctx context.Context, s *served) error {
	const connections, lanes = 4, 64
	var conns [connections]*grpc.ClientConn
	for i := range conns {
		cc, err := f.dialer(s).dial(caller{})
		if err != nil {
			return err
		}
		defer cc.Close()
		conns[i] = cc
	}
	var next atomic.Int64
	o := together(connections*lanes, func(worker int, o *outcome) {
		for i := next.Add(1) - 1; i < int64(len(f.nodes)) && o.failed == 0; i = next.Add(1) - 1 {
			var key [keySize]byte
			rand.Read(key[:])
			r, err := wire.NewKMSServiceClient(conns[worker%connections]).Seal(ctx, &wire.Request{NodeUuid: f.nodes[i].uuid, Data: key[:]})
			f.nodes[i].sealed = r.GetData()
			o.add(0, err)
		}
	})
	if o.failed+o.refused > 0 {
		return fmt.Errorf("seal for %d nodes: %d were refused, %d failed: %w", len(f.nodes), o.refused, o.failed, o.first)
	}
	f.answered(0, len(o.took))
	return nil
}
