package keeper_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/secret"
)

// model is what the keeper should be, in the simplest words.
type model struct {
	t     *rapid.T
	b     *bench
	old   func(string) []byte
	with  func(keeper.Options) keeper.Options
	nodes map[string]*modelNode
	blobs []modelBlob
}

type modelNode struct {
	state    policy.State
	versions []uint32
	last     uint32
}

type modelBlob struct {
	raw       []byte
	data      string
	node      string // whose it is; "" for a reference blob nobody brought
	version   uint32
	reference bool
	dead      bool // its owner was forgotten
}

func (m *model) node(label string) (string, *modelNode) {
	name := rapid.SampledFrom([]string{nodeA, nodeB, nodeC}).Draw(m.t, label)
	if m.nodes[name] == nil {
		m.nodes[name] = &modelNode{}
	}
	return name, m.nodes[name]
}

// registers does what a first seal does, if it is allowed.
func (n *modelNode) registers() {
	if n.state == policy.Unknown {
		n.state = policy.Approved
	}
	if n.state == policy.Approved && len(n.versions) == 0 {
		n.last++
		n.versions = []uint32{n.last}
	}
}

// says is the answer to whoever is not approved; "" for who is.
func (n *modelNode) says() policy.Reason {
	return map[policy.State]policy.Reason{
		policy.Unknown: policy.UnknownNode, policy.Frozen: policy.NodeFrozen,
		policy.Revoked: policy.NodeRevoked, policy.Forgotten: policy.NodeForgotten,
	}[n.state]
}

func reasonOf(err error) policy.Reason {
	if e, ok := errors.AsType[*keeper.Error](err); ok {
		return e.Reason
	}
	if err != nil {
		return policy.Reason(err.Error())
	}
	return ""
}

func (m *model) seal(*rapid.T) {
	name, n := m.node("node")
	data := fmt.Sprintf("data %d", len(m.blobs))
	n.registers()
	raw, err := m.b.Seal(m.b.t.Context(), from(name), secret.Copy([]byte(data)))
	if got := reasonOf(err); got != n.says() {
		m.t.Fatalf("seal: %v, want %q", err, n.says())
	}
	if err == nil {
		m.blobs = append(m.blobs, modelBlob{raw: raw, data: data, node: name, version: n.last})
	}
}

func (m *model) oldBlob(*rapid.T) {
	data := fmt.Sprintf("%-32d", len(m.blobs))
	m.blobs = append(m.blobs, modelBlob{raw: m.old(data), data: data, reference: true})
}

func (m *model) unseal(*rapid.T) {
	if len(m.blobs) == 0 {
		return
	}
	name, n := m.node("node")
	i := rapid.IntRange(0, len(m.blobs)-1).Draw(m.t, "blob")
	want := m.expect(name, n, &m.blobs[i])
	data, err := m.b.Unseal(m.b.t.Context(), from(name), m.blobs[i].raw)
	if got := reasonOf(err); got != want || err == nil && string(data.Bytes()) != m.blobs[i].data {
		m.t.Fatalf("blob %d (%+v) for %s: %v, want %q", i, m.blobs[i], name, err, want)
	}
	m.b.Release(data)
}

// expect says what an unseal gives, and does what it changes.
func (m *model) expect(name string, n *modelNode, b *modelBlob) policy.Reason {
	if b.reference && b.node == "" {
		n.registers()
		if n.says() == "" {
			b.node = name
		}
		return n.says()
	}
	switch {
	case n.says() != "":
		return n.says()
	case !b.reference && b.version > n.last: // it never was
		return keeper.NotAuthentic
	case len(n.versions) == 0:
		return keeper.KeyRetired
	case b.reference && b.node != name:
		return keeper.Imported
	case b.reference && b.dead:
		return keeper.KeyRetired
	case b.reference:
		return "" // sealed anew whenever a version is retired
	case !slices.Contains(n.versions, b.version):
		return keeper.KeyRetired
	case b.node != name:
		return keeper.NotAuthentic
	}
	return ""
}

// did holds an operator's change against whether it should work.
func (m *model) did(err error, should bool) bool {
	if (err == nil) != should {
		m.t.Fatalf("should work: %v; %v", should, err)
	}
	return should
}

func (m *model) rotate(*rapid.T) {
	name, n := m.node("node")
	_, err := m.b.RotateKey(m.b.t.Context(), op, name)
	if m.did(err, len(n.versions) > 0) {
		n.last++
		n.versions = append(n.versions, n.last)
	}
}

func (m *model) retire(*rapid.T) {
	name, n := m.node("node")
	version := rapid.Uint32Range(1, 6).Draw(m.t, "version")
	should := len(n.versions) > 0 && version < n.last
	if m.did(m.b.retire(name, version), should) {
		n.versions = slices.DeleteFunc(n.versions, func(v uint32) bool { return v <= version })
	}
}

func (m *model) change(*rapid.T) {
	name, n := m.node("node")
	ctx := m.b.t.Context()
	switch what := rapid.SampledFrom([]string{"approve", "reinstate", "freeze", "thaw", "revoke", "forget"}).Draw(m.t, "change"); what {
	case "approve", "reinstate":
		err := m.b.Approve(ctx, op, name, keeper.Approval{Reinstate: what == "reinstate"})
		if m.did(err, n.state != policy.Revoked || what == "reinstate") {
			n.state = policy.Approved
		}
	case "freeze":
		if m.did(m.b.Freeze(ctx, op, name), n.state == policy.Approved || n.state == policy.Frozen) {
			n.state = policy.Frozen
		}
	case "thaw":
		if m.did(m.b.Thaw(ctx, op, name), n.state == policy.Frozen) {
			n.state = policy.Approved
		}
	case "revoke":
		m.did(m.b.Revoke(ctx, op, name), true)
		n.state = policy.Revoked
	case "forget":
		if !m.did(m.b.forget(name, name), n.state != policy.Unknown) {
			return
		}
		n.versions = nil
		if n.state != policy.Revoked {
			n.state = policy.Forgotten
		}
		for i := range m.blobs {
			if m.blobs[i].node == name {
				m.blobs[i].dead = true
			}
		}
	}
}

// rotateKEK replaces the KEK under everything and destroys the old version.
func (m *model) rotateKEK(*rapid.T) {
	ctx := m.b.t.Context()
	old, err := m.b.keys.Current(ctx)
	m.did(err, true)
	_, err = m.b.keys.Rotate(ctx)
	m.did(err, true)
	_, err = m.b.Rewrap(ctx, op, nil)
	m.did(err, true)
	m.did(m.b.RetireKEK(ctx, op, old, m.b.keys), true)
}

func (m *model) restart(*rapid.T) {
	dir, t := m.b.dir, m.b.t
	m.b.stop()
	m.b = startIn(t, dir, m.with(open()))
}

// TestModel does anything in any order, and compares each answer with the model.
func TestModel(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of syncs")
	}
	rapid.Check(t, func(rt *rapid.T) {
		seal, with := reference(t)
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		m := &model{t: rt, old: seal, with: with, nodes: map[string]*modelNode{}}
		m.b = startIn(t, dir, with(open()))
		defer func() { m.b.stop() }()
		rt.Repeat(map[string]func(*rapid.T){
			"seal": m.seal, "unseal": m.unseal, "unseal again": m.unseal, "unseal once more": m.unseal, "old blob": m.oldBlob,
			"rotate": m.rotate, "retire": m.retire, "change": m.change, "rotate KEK": m.rotateKEK, "restart": m.restart,
		})
	})
}
