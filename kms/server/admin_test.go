package server_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms/server"
	"github.com/cryptctl/cryptctl/kms/store/bolt"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/role"
)

// call calls a method with an empty message and returns the code of what came.
func call(ctx context.Context, cc *grpc.ClientConn, method string) codes.Code {
	full := "/" + wire.Admin_ServiceDesc.ServiceName + "/" + method
	for _, s := range wire.Admin_ServiceDesc.Streams {
		if s.StreamName != method {
			continue
		}
		stream, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, full)
		if err == nil {
			err = errors.Join(stream.SendMsg(&wire.RewrapKEKRequest{}), stream.CloseSend())
		}
		for err == nil {
			err = stream.RecvMsg(&wire.RewrapKEKRequest{})
		}
		if errors.Is(err, io.EOF) {
			return codes.OK
		}
		return status.Code(err)
	}
	return status.Code(cc.Invoke(ctx, full, &wire.RewrapKEKRequest{}, &wire.RewrapKEKRequest{}))
}

// methods are all calls of operators and the least role for each.
func methods() map[string]role.Role {
	return map[string]role.Role{
		"ListNodes": role.Reader, "GetNode": role.Reader, "GetPolicy": role.Reader, "Explain": role.Reader, "TestPolicy": role.Reader,
		"GetKEKStatus": role.Reader, "TailAudit": role.Reader, "VerifyAudit": role.Reader,
		"ApproveNode": role.Operator, "FreezeNode": role.Operator, "ThawNode": role.Operator, "RotateNodeKey": role.Operator,
		"RevokeNode": role.Admin, "PurgeNodes": role.Admin, "ForgetNode": role.Admin, "SetPolicy": role.Admin, "RetireNodeKey": role.Admin,
		"RotateKEK": role.Admin, "RewrapKEK": role.Admin, "RetireKEK": role.Admin, "Backup": role.Admin,
	}
}

// TestRoles: every call of operators with every role.
func TestRoles(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	want := methods()
	for _, m := range wire.Admin_ServiceDesc.Methods {
		if want[m.MethodName] == role.None {
			t.Errorf("%s is not in the table", m.MethodName)
		}
	}
	if n := len(wire.Admin_ServiceDesc.Methods) + len(wire.Admin_ServiceDesc.Streams); n != len(want) {
		t.Errorf("%d calls, %d in the table", n, len(want))
	}
	ctx := within(t)
	for _, have := range []role.Role{role.None, role.Reader, role.Operator, role.Admin} {
		var roles []role.Role
		if have != role.None {
			roles = append(roles, have)
		}
		cc := ca.operator(t, r.operators, "someone", roles...)
		for method, need := range want {
			code := call(ctx, cc, method)
			if allowed := code != codes.PermissionDenied; allowed != (have >= need) || code == codes.Unimplemented || code == codes.Unavailable {
				t.Errorf("%s as %s: %s", method, have, code)
			}
		}
	}
	// Without a certificate there is not even a connection.
	if code := call(ctx, ca.operator(t, r.operators, ""), "ListNodes"); code != codes.Unavailable {
		t.Errorf("without a certificate: %s", code)
	}
}

// TestListeners: operators are not known where nodes are, unless asked for; then
// they need their roles there, too. Nodes are not known where operators are.
func TestListeners(t *testing.T) {
	ca := newParty(t)
	ctx := within(t)
	r := fresh(t, ca.secure(t))
	root := func(address string) *grpc.ClientConn { return ca.operator(t, address, "root", role.Admin) }
	for method := range methods() {
		if code := call(ctx, root(r.nodes), method); code != codes.Unimplemented {
			t.Errorf("%s on the listener of nodes: %s", method, code)
		}
	}
	if _, err := seal(ctx, root(r.operators), nodeA, make([]byte, 32)); status.Code(err) != codes.Unimplemented {
		t.Errorf("a seal on the listener of operators: %v", err)
	}
	r = fresh(t, func(o *server.Options) { ca.secure(t)(o); o.AdminOnNodes = true })
	for method := range methods() {
		if code := call(ctx, ca.operator(t, r.nodes, ""), method); code != codes.Unauthenticated {
			t.Errorf("%s without a certificate: %s", method, code)
		}
	}
	if code := call(ctx, ca.operator(t, r.nodes, "reader", role.Reader), "RotateKEK"); code != codes.PermissionDenied {
		t.Errorf("a reader rotates: %s", code)
	}
	if code := call(ctx, root(r.nodes), "RotateKEK"); code != codes.OK {
		t.Errorf("an admin: %s", code)
	}
}

// admins is a client with all rights.
func admins(t *testing.T, ca party, r *running) wire.AdminClient {
	return wire.NewAdminClient(ca.operator(t, r.operators, "root", role.Admin))
}

// TestNodesOfOperators: a node's life, as operators see and change it.
func TestNodesOfOperators(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	a, ctx := admins(t, ca, r), within(t)
	p := provider(t, r.nodes, nodeA, ca.as(t, ""))
	pass, token := enroll(t, p)
	is := func(n *wire.Node, err error, state wire.NodeState) {
		t.Helper()
		if err != nil || n.GetState() != state || n.GetNode() != nodeA {
			t.Fatalf("%v, %v", n, err)
		}
	}
	n, err := a.GetNode(ctx, &wire.GetNodeRequest{Node: nodeA})
	is(n, err, wire.NodeState_NODE_STATE_APPROVED)
	if n.GetAddress() != "127.0.0.1" || n.GetFirstSeen() == nil || len(n.GetKeys()) != 1 || !n.GetKeys()[0].GetPrimary() || n.GetKeys()[0].GetKekVersion() == "" {
		t.Errorf("%v", n)
	}
	n, err = a.FreezeNode(ctx, &wire.FreezeNodeRequest{Node: nodeA, Reason: "moved"})
	is(n, err, wire.NodeState_NODE_STATE_FROZEN)
	if _, err := p.Recover(ctx, keys.Request{}, token); keys.Class(err) != keys.ErrDenied {
		t.Errorf("frozen: %v", err)
	}
	n, err = a.ThawNode(ctx, &wire.ThawNodeRequest{Node: nodeA})
	is(n, err, wire.NodeState_NODE_STATE_APPROVED)
	n, err = a.RotateNodeKey(ctx, &wire.RotateNodeKeyRequest{Node: nodeA})
	is(n, err, wire.NodeState_NODE_STATE_APPROVED)
	if len(n.GetKeys()) != 2 {
		t.Errorf("%v", n.GetKeys())
	}
	opens(t, p, token, pass)
	if _, err := a.RetireNodeKey(ctx, &wire.RetireNodeKeyRequest{Node: nodeA, Below: 2, Confirm: nodeB}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("not confirmed: %v", err)
	}
	n, err = a.RetireNodeKey(ctx, &wire.RetireNodeKeyRequest{Node: nodeA, Below: 2, Confirm: nodeA})
	is(n, err, wire.NodeState_NODE_STATE_APPROVED)
	if _, err := p.Recover(ctx, keys.Request{}, token); keys.Class(err) != keys.ErrDenied {
		t.Errorf("retired: %v", err)
	}
	n, err = a.RevokeNode(ctx, &wire.RevokeNodeRequest{Node: nodeA})
	is(n, err, wire.NodeState_NODE_STATE_REVOKED)
	if _, err := a.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeA}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a revoked node is approved: %v", err)
	}
	n, err = a.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeB, ExpiresAt: timestamppb.New(time.Now().Add(time.Hour))})
	if err != nil || n.GetState() != wire.NodeState_NODE_STATE_APPROVED || n.GetExpiresAt() == nil {
		t.Errorf("%v, %v", n, err)
	}
	if _, err := a.RotateNodeKey(ctx, &wire.RotateNodeKeyRequest{Node: nodeB}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a node without a key: %v", err)
	}
	if _, err := a.ForgetNode(ctx, &wire.ForgetNodeRequest{Node: nodeA, Confirm: "yes"}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("not confirmed: %v", err)
	}
	if f, err := a.ForgetNode(ctx, &wire.ForgetNodeRequest{Node: nodeA, Confirm: nodeA}); err != nil || f.GetDestroyedKeys() != 1 {
		t.Errorf("%v, %v", f, err)
	}
	list, err := a.ListNodes(ctx, &wire.ListNodesRequest{States: []wire.NodeState{wire.NodeState_NODE_STATE_APPROVED}})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := list.Recv(); err != nil || n.GetNode() != nodeB {
		t.Errorf("%v, %v", n, err)
	}
	if _, err := list.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if _, err := a.GetNode(ctx, &wire.GetNodeRequest{Node: "01234567-89ab-cdef-0123-000000000000"}); status.Code(err) != codes.NotFound {
		t.Errorf("a node that was never seen: %v", err)
	}
}

// TestPolicies: set, explain and try.
func TestPolicies(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	a, ctx := admins(t, ca, r), within(t)
	enroll(t, provider(t, r.nodes, nodeA, ca.as(t, "")))
	elsewhere := &wire.Policy{Networks: []string{"192.0.2.0/24"}, Rate: &wire.RateLimit{PerHour: 60, Burst: 2}}

	explain := func(q *wire.ExplainRequest, allowed bool, rule string) {
		t.Helper()
		q.Node, q.Address = nodeA, "127.0.0.1"
		if d, err := a.Explain(ctx, q); err != nil || d.GetAllowed() != allowed || d.GetRule() != rule {
			t.Errorf("%v, %v", d, err)
		}
	}
	explain(&wire.ExplainRequest{}, true, "node.state")
	explain(&wire.ExplainRequest{Policy: elsewhere}, false, "node.networks")

	tried, err := a.TestPolicy(ctx, &wire.TestPolicyRequest{Policy: elsewhere})
	if err != nil {
		t.Fatal(err)
	}
	if no, err := tried.Recv(); err != nil || no.GetNode() != nodeA || no.GetAddress() != "127.0.0.1" || no.GetRule() != "rules.networks" {
		t.Errorf("%v, %v", no, err)
	}
	if _, err := tried.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}

	if _, err := a.SetPolicy(ctx, &wire.SetPolicyRequest{Target: &wire.SetPolicyRequest_Node{Node: nodeA}, Policy: elsewhere}); err != nil {
		t.Fatal(err)
	}
	explain(&wire.ExplainRequest{}, false, "node.networks")
	got, err := a.GetPolicy(ctx, &wire.GetPolicyRequest{Node: nodeA})
	if err != nil || got.GetInherited() || len(got.GetPolicy().GetNetworks()) != 1 || got.GetPolicy().GetRate().GetPerHour() != 60 {
		t.Errorf("%v, %v", got, err)
	}
	before, err := a.SetPolicy(ctx, &wire.SetPolicyRequest{Target: &wire.SetPolicyRequest_Node{Node: nodeA}})
	if err != nil || len(before.GetPrevious().GetNetworks()) != 1 {
		t.Errorf("%v, %v", before, err)
	}
	explain(&wire.ExplainRequest{}, true, "node.state")
	if _, err := a.SetPolicy(ctx, &wire.SetPolicyRequest{Target: &wire.SetPolicyRequest_Default{Default: true}, Policy: elsewhere}); err != nil {
		t.Fatal(err)
	}
	explain(&wire.ExplainRequest{}, false, "rules.networks")
	for name, q := range map[string]*wire.SetPolicyRequest{
		"no target": {Policy: elsewhere},
		"host bits": {Target: &wire.SetPolicyRequest_Node{Node: nodeA}, Policy: &wire.Policy{Networks: []string{"192.0.2.1/24"}}},
		"no prefix": {Target: &wire.SetPolicyRequest_Node{Node: nodeA}, Policy: &wire.Policy{Networks: []string{"here"}}},
		"no policy": {Target: &wire.SetPolicyRequest_Default{Default: true}},
	} {
		if _, err := a.SetPolicy(ctx, q); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKeysOfOperators: the key-encryption key is rotated, keys are wrapped anew,
// nodes notice nothing.
func TestKeysOfOperators(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	a, ctx := admins(t, ca, r), within(t)
	p := provider(t, r.nodes, nodeA, ca.as(t, ""))
	pass, token := enroll(t, p)
	before, err := a.GetKEKStatus(ctx, &wire.GetKEKStatusRequest{})
	if err != nil || before.GetBackend() != "file" || len(before.GetVersions()) != 1 || before.GetVersions()[0].GetWraps() != 1 {
		t.Fatalf("%v, %v", before, err)
	}
	after, err := a.RotateKEK(ctx, &wire.RotateKEKRequest{})
	if err != nil || len(after.GetVersions()) != 2 || after.GetPrimary() == before.GetPrimary() {
		t.Fatalf("%v, %v", after, err)
	}
	stream, err := a.RewrapKEK(ctx, &wire.RewrapKEKRequest{})
	if err != nil {
		t.Fatal(err)
	}
	last := &wire.RewrapProgress{}
	for {
		next, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = next
	}
	if last.GetDone() != 1 || last.GetTotal() != 1 || last.GetRenewed() != 1 {
		t.Errorf("%v", last)
	}
	now, err := a.GetKEKStatus(ctx, &wire.GetKEKStatusRequest{})
	if v := now.GetVersions(); err != nil || len(v) != 2 || v[0].GetVersion() != before.GetPrimary() || v[0].GetWraps() != 0 || v[1].GetVersion() != after.GetPrimary() || v[1].GetWraps() != 1 {
		t.Errorf("%v, %v", now, err)
	}
	opens(t, p, token, pass)
}

// TestBackup: what comes restores.
func TestBackup(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	enroll(t, provider(t, r.nodes, nodeA, ca.as(t, "")))
	stream, err := admins(t, ca, r).Backup(within(t), &wire.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	var sum []byte
	for sum == nil {
		c, err := stream.Recv()
		if err != nil || len(c.GetData()) > 64<<10 {
			t.Fatalf("%d bytes, %v", len(c.GetData()), err)
		}
		all.Write(c.GetData())
		sum = c.GetSha256()
	}
	if want := sha256.Sum256(all.Bytes()); !bytes.Equal(sum, want[:]) {
		t.Error("the sum is another one")
	}
	if n, err := bolt.Restore(filepath.Join(t.TempDir(), "restored.db"), &all); err != nil || n < 1 {
		t.Errorf("%d records, %v", n, err)
	}
}

// TestAuditOfOperators: records are read, followed and verified.
func TestAuditOfOperators(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	a, ctx := admins(t, ca, r), within(t)
	p := provider(t, r.nodes, nodeA, ca.as(t, ""))
	pass, token := enroll(t, p)
	if _, err := a.FreezeNode(ctx, &wire.FreezeNodeRequest{Node: nodeA, Reason: "moved"}); err != nil {
		t.Fatal(err)
	}
	stream, err := a.TailAudit(ctx, &wire.TailAuditRequest{LastRecords: 2, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true} {
		rec, err := stream.Recv()
		if err != nil || rec.GetOp() != "freeze" || rec.GetActor() != "root" || rec.GetAddress() != "127.0.0.1" || rec.GetAllowed() != want ||
			rec.GetReason() != "moved" || rec.GetRole() != "admin" || len(rec.GetSerial()) < 8 || rec.GetAfter() != "state=frozen" || rec.GetOutcome() != []string{"begun", "done"}[i] || rec.GetSequence() != uint64(2+i) {
			t.Errorf("%v, %v", rec, err)
		}
	}
	if _, err := a.ThawNode(ctx, &wire.ThawNodeRequest{Node: nodeA}); err != nil {
		t.Fatal(err)
	}
	if rec, err := stream.Recv(); err != nil || rec.GetOp() != "thaw" || rec.GetSequence() != 4 {
		t.Errorf("%v, %v", rec, err)
	}
	opens(t, p, token, pass)
	v, err := a.VerifyAudit(ctx, &wire.VerifyAuditRequest{})
	if err != nil || !v.GetOk() || v.GetRecords() != 6 || v.GetHead().GetSequence() != 6 || len(v.GetHead().GetHash()) != 32 || v.GetFirst() != 1 {
		t.Errorf("%v, %v", v, err)
	}
	files, _ := filepath.Glob(filepath.Join(r.dir, "audit", "*.jsonl"))
	if len(files) != 1 {
		t.Fatal(files)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], bytes.Replace(text, []byte(`"op":"thaw"`), []byte(`"op":"seal"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err = a.VerifyAudit(ctx, &wire.VerifyAuditRequest{}); err != nil || v.GetOk() || v.GetBrokenAt() != 4 {
		t.Errorf("%v, %v", v, err)
	}
}
