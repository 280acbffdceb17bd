package interop_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/siderolabs/go-blockdevice/v2/encryption"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/test/interop/served"
)

// mover is a node that was provisioned with the reference server: a volume as
// Talos makes it, and its image from then on.
type mover struct {
	*disk
	uuid   string
	sealed []byte // as its token has it
	pass   string
	image  []byte
}

// provisioned has the reference server seal for a node, which makes its volume.
func provisioned(t *testing.T, r reference, n int) mover {
	t.Helper()
	provider := talos(t)
	m := mover{disk: blank(t, plain(), diskSize), uuid: fmt.Sprintf("4c4c4544-0042-3510-8051-%012x", n)}
	value := secret.Random(32)
	defer value.Wipe()
	m.pass = base64.StdEncoding.EncodeToString(value.Bytes())
	m.sealed = talosAs(t, m.uuid, "seal", r, value.Bytes())
	if err := provider.Encrypt(t.Context(), m.path, encryption.NewKey(0, []byte(m.pass))); err != nil {
		t.Fatal(err)
	}
	m.born(m.pass)
	if err := provider.SetToken(t.Context(), m.path, 0, newKMSToken(string(m.sealed))); err != nil {
		t.Fatal(err)
	}
	var err error
	if m.image, err = os.ReadFile(m.path); err != nil {
		t.Fatal(err)
	}
	return m
}

// provider is ours for the node, at our server.
func (m mover) provider(r reference) *kms.Provider {
	m.Helper()
	ca, err := os.ReadFile(r.ca)
	if err != nil {
		m.Fatal(err)
	}
	p, err := kms.New(kms.Options{Endpoints: []string{r.endpoint}, NodeUUID: m.uuid, Authorities: ca})
	if err != nil {
		m.Fatal(err)
	}
	return p
}

// opensAt has a server unseal the token of the node's header: for a Talos node and
// for our provider. What they get opens the volume, in which no byte changed.
func (m mover) opensAt(t *testing.T, r reference) {
	t.Helper()
	value := talosAs(t, m.uuid, "unseal", r, m.sealed)
	theirs := base64.StdEncoding.EncodeToString(value)
	ours, err := m.provider(r).Recover(t.Context(), keys.Request{}, m.kmsToken(0))
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Wipe()
	if theirs != m.pass || string(ours.Bytes()) != m.pass {
		t.Fatalf("node %s gets another passphrase", m.uuid)
	}
	if !m.opensThere(theirs, 0) || !m.opensHere(string(ours.Bytes()), 0) {
		t.Errorf("node %s: what the server gives does not open the volume", m.uuid)
	}
	if now, err := os.ReadFile(m.path); err != nil || !bytes.Equal(now, m.image) {
		t.Errorf("node %s: the volume was written to (%v)", m.uuid, err)
	}
}

// TestKMSMove: nodes that were provisioned with the reference server move to ours,
// which has its key, without being sealed anew; then the key goes, and they still
// open, each for its own node only.
func TestKMSMove(t *testing.T) {
	const nodes = 4
	programs := build(t)
	kek := keyFile(t, string(secret.Random(32).Bytes()))
	old, stopOld := runReference(t, programs, kek, "", "", "")
	var all []mover
	for n := range nodes {
		all = append(all, provisioned(t, old, n))
	}
	late := talosAs(t, all[0].uuid, "seal", old, secret.Random(32).Bytes()) // never brought while the key is here
	stopOld()

	program, err := served.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := served.New(t, program)
	s.Set(t, `import_reference_key: ""`, `import_reference_key: `+kek)
	at := func() reference { return reference{"https://" + s.Address("nodes"), s.Path("ca.crt"), programs} }
	s.Start(t)
	opened, refused := 0, 0
	others := func() {
		for i, m := range all {
			refusedThere(t, all[(i+1)%nodes].uuid, at(), m.sealed, "the blob belongs to another node")
			refusedThere(t, kmsNode, at(), m.sealed, "denied")
			refused += 2
		}
	}
	each := func() {
		for _, m := range all {
			m.opensAt(t, at())
			opened++
		}
	}
	each()
	others()
	each()
	s.Stop()
	s.Set(t, `import_reference_key: `+kek, `import_reference_key: ""`)
	s.Start(t)
	each()
	others()
	refusedThere(t, all[0].uuid, at(), late, "malformed: a blob of the reference server")
	t.Logf("SUMMARY move: %d volumes of the reference server opened %d times at ours, the last %d without its key, not a byte of them written; %d requests of other nodes refused",
		nodes, opened, nodes, refused+1)
}

// refusedThere has a Talos node bring a blob that it must not get.
func refusedThere(t *testing.T, uuid string, r reference, sealed []byte, why string) {
	t.Helper()
	answer, problem, err := talosTries(t, uuid, "unseal", r, sealed)
	if err == nil || len(answer) > 0 || !strings.Contains(problem, why) {
		t.Errorf("node %s gets %d bytes: %v, %s; must be refused: %s", uuid, len(answer), err, problem, why)
	}
}
