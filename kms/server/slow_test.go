package server_test

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/server"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/role"
)

// TestBackupNotRead: an operator who asks for a backup and does not read it holds
// up no node and no operator, and is cut off in time; the record says why.
func TestBackupNotRead(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	r := fresh(t, func(o *server.Options) { ca.secure(t)(o); o.Limits.Send = time.Second })
	for i := range 300 {
		if _, err := r.store.Swap(t.Context(), fmt.Sprint("filler/", i), 0, make([]byte, 4<<10)); err != nil {
			t.Fatal(err)
		}
	}
	node := ca.operator(t, r.nodes, "")
	sealed, err := seal(within(t), node, nodeA, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal(within(t), node, nodeB, make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	s, err := wire.NewAdminClient(ca.narrow(t, r.operators)).Backup(within(t), &wire.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil { // and no more
		t.Fatal(err)
	}
	begin := time.Now()
	if _, err := admins(t, ca, r).ForgetNode(within(t), &wire.ForgetNodeRequest{Node: nodeB, Confirm: nodeB}); err != nil {
		t.Error(err)
	}
	if _, err := unseal(within(t), node, nodeA, sealed); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("answered after %s", took)
	}
	var rec audit.Record
	eventually(t, "the backup ends", func() bool { rec = last(t, r, "backup"); return rec.Outcome != "begun" })
	if rec.Outcome != "failed" || !strings.Contains(rec.Detail, "does not read") || strings.Contains(rec.Detail, "rpc error") {
		t.Errorf("on record: %s, %q", rec.Outcome, rec.Detail)
	}
	for err == nil {
		_, err = s.Recv()
	}
	if status.Code(err) != codes.DeadlineExceeded && status.Code(err) != codes.Canceled {
		t.Errorf("the operator: %v", err)
	}
}

// last is the last record of an operation.
func last(t *testing.T, r *running, op string) (found audit.Record) {
	t.Helper()
	for rec, err := range audit.Read(filepath.Join(r.dir, "audit"), 1) {
		if err != nil {
			t.Fatal(err)
		}
		if rec.Op == op {
			found = rec
		}
	}
	return found
}

// narrow is a connection of an admin that takes little at a time.
func (p party) narrow(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	pair, err := p.client(t, "slow", role.Admin).TLS()
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pki.ParsePool(p.ca)
	if err != nil {
		t.Fatal(err)
	}
	return connect(t, address, grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}})))
}
