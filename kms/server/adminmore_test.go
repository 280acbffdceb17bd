package server_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/server"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/role"
	"github.com/cryptctl/cryptctl/secret"
)

// collect reads a stream to its end.
func collect[T any](t *testing.T, s grpc.ServerStreamingClient[T], err error) (all []*T) {
	t.Helper()
	for err == nil {
		var one *T
		if one, err = s.Recv(); err == nil {
			all = append(all, one)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return all
}

func code(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}

// TestBackFromRevoked: a forgotten node is seen as one, and a revoked one comes back
// when an admin says so, and with its keys.
func TestBackFromRevoked(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	a, ctx := admins(t, ca, r), within(t)
	operator := wire.NewAdminClient(ca.operator(t, r.operators, "olga", role.Operator))
	p := provider(t, r.nodes, nodeA, ca.as(t, ""))
	pass, token := enroll(t, p)
	_, err := a.RevokeNode(ctx, &wire.RevokeNodeRequest{Node: nodeA})
	code(t, "revoke", err, codes.OK)
	_, err = a.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeA})
	code(t, "approve", err, codes.FailedPrecondition)
	_, err = operator.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeA, Reinstate: true})
	code(t, "an operator reinstates", err, codes.PermissionDenied)
	if _, err := p.Recover(ctx, keys.Request{}, token); keys.Class(err) != keys.ErrDenied {
		t.Errorf("revoked: %v", err)
	}
	n, err := a.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeA, Reinstate: true, Reason: "found again"})
	if err != nil || n.GetState() != wire.NodeState_NODE_STATE_APPROVED || n.GetReason() != "found again" {
		t.Errorf("%v, %v", n, err)
	}
	opens(t, p, token, pass)

	_, err = a.ForgetNode(ctx, &wire.ForgetNodeRequest{Node: nodeA, Confirm: nodeA})
	code(t, "forget", err, codes.OK)
	n, err = a.GetNode(ctx, &wire.GetNodeRequest{Node: nodeA})
	if err != nil || n.GetState() != wire.NodeState_NODE_STATE_FORGOTTEN || len(n.GetKeys()) != 0 {
		t.Errorf("%v, %v", n, err)
	}
	list, err := a.ListNodes(ctx, &wire.ListNodesRequest{States: []wire.NodeState{wire.NodeState_NODE_STATE_FORGOTTEN}})
	if all := collect(t, list, err); len(all) != 1 || all[0].GetNode() != nodeA {
		t.Errorf("forgotten are %v", all)
	}
	_, err = operator.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeA})
	code(t, "an operator approves anew", err, codes.OK)
}

// TestApproveWithPolicy: networks and a limit come with an approval; afterwards they
// are an admin's.
func TestApproveWithPolicy(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	ctx := within(t)
	admin := admins(t, ca, r)
	operator := wire.NewAdminClient(ca.operator(t, r.operators, "olga", role.Operator))
	narrow := &wire.Policy{Networks: []string{"192.0.2.0/24"}, Rate: &wire.RateLimit{PerHour: 5}}
	is := func(n *wire.Node, err error, networks int, perHour uint32) {
		t.Helper()
		if err != nil || len(n.GetPolicy().GetNetworks()) != networks || n.GetPolicy().GetRate().GetPerHour() != perHour {
			t.Errorf("%v, %v", n, err)
		}
	}
	n, err := operator.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeA, Policy: narrow})
	is(n, err, 1, 5)
	n, err = operator.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeA, ExpiresAt: timestamppb.New(time.Now().Add(time.Hour))})
	is(n, err, 1, 5)
	for _, change := range []func() error{
		func() error { return nil },
		func() error { _, err := admin.FreezeNode(ctx, &wire.FreezeNodeRequest{Node: nodeA}); return err },
	} {
		code(t, "change", change(), codes.OK)
		_, err = operator.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeA, Policy: &wire.Policy{}})
		code(t, "an operator widens", err, codes.PermissionDenied)
	}
	n, err = operator.GetNode(ctx, &wire.GetNodeRequest{Node: nodeA})
	is(n, err, 1, 5)
	n, err = admin.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeA, Policy: &wire.Policy{}})
	is(n, err, 0, 0)
	_, err = admin.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeA, Policy: &wire.Policy{Networks: []string{"here"}}})
	code(t, "no network", err, codes.InvalidArgument)
}

// TestEnrolment: what becomes of strangers is read and set, and not by half.
func TestEnrolment(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	a, ctx := admins(t, ca, r), within(t)
	set := func(p *wire.Policy, e wire.Enrolment) *wire.SetPolicyResponse {
		t.Helper()
		out, err := a.SetPolicy(ctx, &wire.SetPolicyRequest{Target: &wire.SetPolicyRequest_Default{Default: true}, Policy: p, Enrolment: e})
		code(t, "set", err, codes.OK)
		return out
	}
	is := func(perHour uint32, e wire.Enrolment) {
		t.Helper()
		if got, err := a.GetPolicy(ctx, &wire.GetPolicyRequest{}); err != nil || got.GetPolicy().GetRate().GetPerHour() != perHour || got.GetEnrolment() != e {
			t.Errorf("%v, %v", got, err)
		}
	}
	is(0, wire.Enrolment_ENROLMENT_OPEN)
	set(&wire.Policy{Rate: &wire.RateLimit{PerHour: 9}}, 0)
	is(9, wire.Enrolment_ENROLMENT_OPEN)
	if was := set(&wire.Policy{}, wire.Enrolment_ENROLMENT_ALLOW_LIST); was.GetPreviousEnrolment() != wire.Enrolment_ENROLMENT_OPEN || was.GetPrevious().GetRate().GetPerHour() != 9 {
		t.Errorf("%v", was)
	}
	is(0, wire.Enrolment_ENROLMENT_ALLOW_LIST)
	_, _, err := provider(t, r.nodes, nodeA, ca.as(t, "")).Enroll(ctx, keys.Request{})
	if keys.Class(err) != keys.ErrDenied {
		t.Errorf("a stranger seals: %v", err)
	}
	for name, q := range map[string]*wire.SetPolicyRequest{
		"of a node":  {Target: &wire.SetPolicyRequest_Node{Node: nodeA}, Policy: &wire.Policy{}, Enrolment: wire.Enrolment_ENROLMENT_OPEN},
		"no such":    {Target: &wire.SetPolicyRequest_Default{Default: true}, Policy: &wire.Policy{}, Enrolment: 7},
		"not a word": {Target: &wire.SetPolicyRequest_Default{Default: true}, Enrolment: wire.Enrolment_ENROLMENT_OPEN},
	} {
		_, err := a.SetPolicy(ctx, q)
		code(t, name, err, codes.InvalidArgument)
	}
	is(0, wire.Enrolment_ENROLMENT_ALLOW_LIST)
}

// TestNotJudged: nodes that were not seen since the start are named when networks
// decide about them, and only if they are served at all.
func TestNotJudged(t *testing.T) {
	ca := newParty(t)
	dir := t.TempDir()
	before := open(t, dir, policy.Rules{Enrol: policy.Open})
	r := start(t, before, ca.secure(t))
	enroll(t, provider(t, r.nodes, nodeA, ca.as(t, "")))
	enroll(t, provider(t, r.nodes, nodeB, ca.as(t, "")))
	ctx := within(t)
	_, err := admins(t, ca, r).FreezeNode(ctx, &wire.FreezeNodeRequest{Node: nodeB})
	code(t, "freeze", err, codes.OK)
	r.stop()
	before.close()

	after := open(t, dir, policy.Rules{Enrol: policy.Open})
	t.Cleanup(after.close)
	r = start(t, after, ca.secure(t))
	a := admins(t, ca, r)
	try := func(p *wire.Policy) []*wire.Refusal {
		s, err := a.TestPolicy(ctx, &wire.TestPolicyRequest{Policy: p})
		return collect(t, s, err)
	}
	if all := try(&wire.Policy{Rate: &wire.RateLimit{PerHour: 9}}); len(all) != 0 {
		t.Errorf("a rate: %v", all)
	}
	all := try(&wire.Policy{Networks: []string{"192.0.2.0/24"}})
	if len(all) != 1 || all[0].GetNode() != nodeA || !all[0].GetNotJudged() || all[0].GetRule() != "" || !strings.Contains(all[0].GetDetail(), "not seen since the server started") {
		t.Errorf("networks: %v", all)
	}
	enroll(t, provider(t, r.nodes, nodeA, ca.as(t, "")))
	all = try(&wire.Policy{Networks: []string{"192.0.2.0/24"}})
	if len(all) != 1 || all[0].GetNotJudged() || all[0].GetCode() != "wrong-network" || all[0].GetAddress() != "127.0.0.1" {
		t.Errorf("seen: %v", all)
	}
}

// TestRetireKEK: a version goes when nothing needs it, and when it was confirmed.
func TestRetireKEK(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	a, ctx := admins(t, ca, r), within(t)
	p := provider(t, r.nodes, nodeA, ca.as(t, ""))
	pass, token := enroll(t, p)
	before, err := a.GetKEKStatus(ctx, &wire.GetKEKStatusRequest{})
	code(t, "status", err, codes.OK)
	old := before.GetPrimary()
	retire := func(version, confirm string) (*wire.KEKStatus, error) {
		return a.RetireKEK(ctx, &wire.RetireKEKRequest{Version: version, Confirm: confirm, Reason: "old"})
	}
	refused := func(what, version, confirm string, want codes.Code) {
		t.Helper()
		_, err := retire(version, confirm)
		code(t, what, err, want)
		opens(t, p, token, pass)
	}
	refused("the only one", old, old, codes.FailedPrecondition)
	_, err = a.RotateKEK(ctx, &wire.RotateKEKRequest{})
	code(t, "rotate", err, codes.OK)
	refused("in use", old, old, codes.FailedPrecondition)
	s, err := a.RewrapKEK(ctx, &wire.RewrapKEKRequest{Reason: "new one"})
	collect(t, s, err)
	refused("not confirmed", old, "yes", codes.FailedPrecondition)
	refused("none", "", "", codes.FailedPrecondition)
	refused("no such", "kffffffff", "kffffffff", codes.NotFound)
	after, err := retire(old, old)
	if err != nil || len(after.GetVersions()) != 1 || after.GetVersions()[0].GetVersion() != after.GetPrimary() || after.GetVersions()[0].GetState() != wire.KEKVersionState_KEK_VERSION_STATE_ENABLED {
		t.Errorf("%v, %v", after, err)
	}
	refused("gone", old, old, codes.NotFound)

	r = fresh(t, func(o *server.Options) { ca.secure(t)(o); o.Parts.KEK = transit{} })
	_, err = admins(t, ca, r).RetireKEK(ctx, &wire.RetireKEKRequest{Version: "v1", Confirm: "v1"})
	code(t, "of Transit", err, codes.Unimplemented)
}

// transit is a KEK that tells its current version only.
type transit struct{}

func (transit) Rotate(context.Context) (string, error)  { return "v11", nil }
func (transit) Current(context.Context) (string, error) { return "v11", nil }

// TestKEKNames: versions are called what their keeper calls them.
func TestKEKNames(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, func(o *server.Options) { ca.secure(t)(o); o.Parts.KEK, o.Parts.KEKName = transit{}, "vault" })
	s, err := admins(t, ca, r).GetKEKStatus(within(t), &wire.GetKEKStatusRequest{})
	if err != nil || s.GetPrimary() != "v11" || len(s.GetVersions()) != 1 || s.GetVersions()[0].GetVersion() != "v11" || s.GetVersions()[0].GetState() != 0 {
		t.Errorf("%v, %v", s, err)
	}
}

// TestAuditHeads: a log that was cut is found by a head that was kept elsewhere.
func TestAuditHeads(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	a, ctx := admins(t, ca, r), within(t)
	enroll(t, provider(t, r.nodes, nodeA, ca.as(t, "")))
	v, err := a.VerifyAudit(ctx, &wire.VerifyAuditRequest{})
	code(t, "verify", err, codes.OK)
	kept := v.GetHead()
	later := &wire.AuditHead{Sequence: kept.GetSequence() + 5, Hash: kept.GetHash()}
	wrong := &wire.AuditHead{Sequence: kept.GetSequence(), Hash: bytes.Repeat([]byte{7}, sha256.Size)}
	for name, test := range map[string]struct {
		heads []*wire.AuditHead
		ok    bool
		code  codes.Code
	}{
		"the last one": {[]*wire.AuditHead{kept}, true, codes.OK},
		"cut":          {[]*wire.AuditHead{kept, later}, false, codes.OK},
		"replaced":     {[]*wire.AuditHead{wrong}, false, codes.OK},
		"short":        {[]*wire.AuditHead{{Sequence: 1, Hash: []byte{1}}}, false, codes.InvalidArgument},
		"too many":     {slices.Repeat([]*wire.AuditHead{kept}, 101), false, codes.InvalidArgument},
	} {
		v, err := a.VerifyAudit(ctx, &wire.VerifyAuditRequest{Heads: test.heads})
		if status.Code(err) != test.code || v.GetOk() != test.ok || test.code == codes.OK && !test.ok && v.GetDetail() == "" {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
}

// TestTailOfNode: so many records before the end are counted of those about the
// node.
func TestTailOfNode(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	a, ctx := admins(t, ca, r), within(t)
	enroll(t, provider(t, r.nodes, nodeA, ca.as(t, "")))
	enroll(t, provider(t, r.nodes, nodeA, ca.as(t, "")))
	enroll(t, provider(t, r.nodes, nodeB, ca.as(t, "")))
	for _, test := range []struct {
		uuid string
		last uint32
		want []uint64
	}{
		{"", 2, []uint64{2, 3}},
		{nodeA, 1, []uint64{2}},
		{nodeA, 9, []uint64{1, 2}},
		{nodeB, 1, []uint64{3}},
		{nodeA, 0, nil},
	} {
		s, err := a.TailAudit(ctx, &wire.TailAuditRequest{Node: test.uuid, LastRecords: test.last})
		var got []uint64
		for _, rec := range collect(t, s, err) {
			got = append(got, rec.GetSequence())
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("last %d of %q: %v, want %v", test.last, test.uuid, got, test.want)
		}
	}
}

// TestBackupRecord: the log says which backup it was, and from where on it is
// behind.
func TestBackupRecord(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	enroll(t, provider(t, r.nodes, nodeA, ca.as(t, "")))
	s, err := admins(t, ca, r).Backup(within(t), &wire.BackupRequest{})
	all := collect(t, s, err)
	sum := all[len(all)-1].GetSha256()
	found := 0
	for rec, err := range audit.Read(filepath.Join(r.dir, "audit"), 1) {
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := server.BackupOf(rec, sum); ok {
			if found++; before != 1 || rec.Seq != 3 || rec.Actor != "root" {
				t.Errorf("%v, after %d", rec, before)
			}
		}
		if _, ok := server.BackupOf(rec, make([]byte, sha256.Size)); ok {
			t.Errorf("%v is that of another backup", rec)
		}
	}
	if found != 1 {
		t.Errorf("%d records of the backup", found)
	}
}

// TestListGoesOn: a record that cannot be read hides no other node.
func TestListGoesOn(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	if _, err := r.store.Swap(t.Context(), "node/"+nodeB, 0, []byte("{")); err != nil { // in front of the other
		t.Fatal(err)
	}
	enroll(t, provider(t, r.nodes, nodeA, ca.as(t, "")))
	s, err := admins(t, ca, r).ListNodes(within(t), &wire.ListNodesRequest{})
	code(t, "list", err, codes.OK)
	if n, err := s.Recv(); err != nil || n.GetNode() != nodeA {
		t.Errorf("%v, %v", n, err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), nodeB) {
		t.Errorf("at the end: %v", err)
	}
}

// TestAdminsPolicyStays: what an admin set for a node that waits is not taken back
// by an operator who approves it; and the record says why in plain words.
func TestAdminsPolicyStays(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	b := open(t, t.TempDir(), policy.Rules{Enrol: policy.AllowList})
	t.Cleanup(b.close)
	r := start(t, b, ca.secure(t))
	ctx := within(t)
	operator := wire.NewAdminClient(ca.operator(t, r.operators, "operator", role.Operator))
	_, err := seal(ctx, ca.operator(t, r.nodes, ""), nodeA, make([]byte, 32))
	code(t, "a stranger", err, codes.FailedPrecondition)
	_, err = admins(t, ca, r).SetPolicy(ctx, &wire.SetPolicyRequest{Target: &wire.SetPolicyRequest_Node{Node: nodeA}, Policy: &wire.Policy{Networks: []string{"10.0.0.0/8"}}})
	code(t, "an admin", err, codes.OK)
	for _, wide := range []*wire.Policy{{Networks: []string{"0.0.0.0/0"}}, {}} {
		_, err = operator.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeA, Policy: wide})
		code(t, "an operator widens", err, codes.PermissionDenied)
		if rec := last(t, r, "approve"); rec.Outcome != "failed" || !strings.Contains(rec.Detail, "needs the role admin") || strings.Contains(rec.Detail, "rpc error") {
			t.Errorf("on record: %s, %q", rec.Outcome, rec.Detail)
		}
	}
	n, err := operator.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeA})
	if err != nil || n.GetState() != wire.NodeState_NODE_STATE_APPROVED || len(n.GetPolicy().GetNetworks()) != 1 || n.GetPolicy().GetNetworks()[0] != "10.0.0.0/8" {
		t.Errorf("%v, %v", n, err)
	}
}

// TestFollowGoesOn: to follow the log costs what is new in it: records that were
// read are not read again.
func TestFollowGoesOn(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	node := ca.operator(t, r.nodes, "")
	if _, err := seal(within(t), node, nodeA, make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	s, err := admins(t, ca, r).TailAudit(within(t), &wire.TailAuditRequest{From: 1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if rec, err := s.Recv(); err != nil || rec.GetNode() != nodeA {
		t.Fatalf("%v, %v", rec, err)
	}
	names, err := filepath.Glob(filepath.Join(r.dir, "audit", "*.jsonl"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	f, err := os.OpenFile(names[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 10); err != nil { // who reads it again finds it edited
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := seal(within(t), node, nodeB, make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
		if rec, err := s.Recv(); err != nil || rec.GetNode() != nodeB {
			t.Fatalf("%d: %v, %v", i, rec, err)
		}
	}
}

// TestRotateForeignKEK: a keyset that is not that of the store gets no version: it
// would look like the newest, and open nothing.
func TestRotateForeignKEK(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), newParty(t)
	b := open(t, dir, policy.Rules{Enrol: policy.Open})
	if _, err := b.keeper.Seal(t.Context(), keeper.Request{Node: nodeA}, secret.Copy([]byte("data"))); err != nil {
		t.Fatal(err)
	}
	b.close()
	if err := os.Remove(filepath.Join(dir, "kek.json")); err != nil {
		t.Fatal(err)
	}
	b = open(t, dir, policy.Rules{Enrol: policy.Open})
	t.Cleanup(b.close)
	before, err := b.kek.Current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = admins(t, ca, start(t, b, ca.secure(t))).RotateKEK(within(t), &wire.RotateKEKRequest{})
	code(t, "rotate", err, codes.Unavailable)
	if after, err := b.kek.Current(t.Context()); err != nil || after != before {
		t.Errorf("version %s after %s, %v", after, before, err)
	}
}
