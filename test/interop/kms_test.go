package interop_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/siderolabs/go-blockdevice/v2/encryption"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/secret"
)

const kmsNode = "4c4c4544-0042-3510-8051-b7c04f4e3432"

// referenceServer and referenceClient are programs with Talos' definition of the
// service, which no program of ours may link.
const (
	referenceServer = "github.com/siderolabs/kms-client/cmd/kms-server"
	referenceClient = "github.com/cryptctl/cryptctl/test/interop/refclient"
)

// build makes the two programs and returns their folder.
func build(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", dir+"/", referenceServer, referenceClient).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// reference is a key server that runs, and the folder with the programs.
type reference struct {
	endpoint string
	ca       string // path; "" in plaintext
	programs string
}

// startReference runs the reference server under a key of its own, with TLS when
// there is a pair of files.
func startReference(t testing.TB, programs, ca, certPath, keyPath string) reference {
	t.Helper()
	kek := keyFile(t, string(secret.Random(32).Bytes()))
	r, _ := runReference(t, programs, kek, ca, certPath, keyPath)
	return r
}

// runReference runs the reference server under the key of a file, until the
// returned function is called or the test ends.
func runReference(t testing.TB, programs, kek, ca, certPath, keyPath string) (r reference, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	args := []string{"--kms-api-endpoint", address, "--key-path", kek}
	r = reference{"grpc://" + address, ca, programs}
	if certPath != "" {
		args = append(args, "--tls-enable", "--tls-cert-path", certPath, "--tls-key-path", keyPath)
		r.endpoint = "https://" + address
	}
	cmd := exec.Command(filepath.Join(programs, path.Base(referenceServer)), args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	t.Cleanup(stop)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return r, stop
		}
		if time.Now().After(end) {
			stop()
			t.Fatalf("the reference server does not listen: %v\n%s", err, log.String())
		}
	}
}

// startSecure is one with TLS, under an authority of ours.
func startSecure(t testing.TB, programs string) reference {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
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
	return startReference(t, programs, in("ca.crt"), in("tls.crt"), in("tls.key"))
}

// ours is our provider for a reference server.
func (r reference) ours(t testing.TB) *kms.Provider {
	t.Helper()
	opts := kms.Options{Endpoints: []string{r.endpoint}, NodeUUID: kmsNode}
	if r.ca != "" {
		var err error
		if opts.Authorities, err = os.ReadFile(r.ca); err != nil {
			t.Fatal(err)
		}
	}
	p, err := kms.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// talosAsks does what a Talos node does. Whoever listens, a reference server or
// another one.
func talosAsks(t testing.TB, verb string, r reference, data []byte) []byte {
	t.Helper()
	return talosAs(t, kmsNode, verb, r, data)
}

// talosAs is the same for another node.
func talosAs(t testing.TB, node, verb string, r reference, data []byte) []byte {
	t.Helper()
	answer, problem, err := talosTries(t, node, verb, r, data)
	if err != nil {
		t.Fatalf("refclient %s: %v\n%s", verb, err, problem)
	}
	return answer
}

// talosTries returns what a Talos node is answered, or what it says of the error.
func talosTries(t testing.TB, node, verb string, r reference, data []byte) (answer []byte, problem string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	args := []string{verb, r.endpoint, node}
	if r.ca != "" {
		args = append(args, r.ca)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(r.programs, path.Base(referenceClient)), args...)
	var said strings.Builder
	cmd.Stdin, cmd.Stderr = bytes.NewReader(data), &said
	answer, err = cmd.Output()
	return answer, said.String(), err
}

func references(t *testing.T, each func(*testing.T, reference)) {
	programs := build(t)
	t.Run("plaintext", func(t *testing.T) { each(t, startReference(t, programs, "", "", "")) })
	t.Run("TLS", func(t *testing.T) { each(t, startSecure(t, programs)) })
}

// TestKMSOurs: what our provider has the reference server seal, Talos opens: its
// token reader, its client, cryptsetup.
func TestKMSOurs(t *testing.T) {
	provider := talos(t)
	references(t, func(t *testing.T, r reference) {
		p := r.ours(t)
		pass, token, err := p.Enroll(t.Context(), keys.Request{Slot: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer pass.Wipe()
		d := ours(t, plain(), "alpha")
		d.keys[1] = string(pass.Bytes())
		d.commit(luks.AddKeyslot(1, d.sealNew(d.keys[1]), token))
		d.talosAccepts(provider, "we added a kms slot")
		var got kmsToken
		if err := provider.ReadToken(t.Context(), d.path, 1, &got); err != nil || got.Type != "sideroKMS" {
			t.Fatalf("Talos reads the token as %+v, %v", got, err)
		}
		sealed := got.UserData.SealedData
		if written, err := newKMSToken(string(sealed)).Bytes(); err != nil || !bytes.Equal(written, token) {
			t.Errorf("our token is\n%s, Talos would write\n%s, %v", token, written, err)
		}
		value := talosAsks(t, "unseal", r, sealed)
		theirs := base64.StdEncoding.EncodeToString(value)
		if theirs != d.keys[1] || !d.opensThere(theirs, 1) {
			t.Error("what Talos unseals does not open the slot")
		}
		again, err := p.Recover(t.Context(), keys.Request{Slot: 1}, d.kmsToken(1))
		if err != nil || !again.Equal(pass) {
			t.Errorf("from the header: the same %v, %v", again.Equal(pass), err)
		}
		again.Wipe()
	})
}

// kmsToken is the token of a slot as it stands in the header.
func (d *disk) kmsToken(slot int) []byte {
	d.Helper()
	token, ok := d.header().Token(slot)
	if !ok {
		d.Fatalf("slot %d has no token", slot)
	}
	return token.JSON
}

// TestKMSTheirs: a volume that Talos made with a KMS key opens with our provider.
func TestKMSTheirs(t *testing.T) {
	provider := talos(t)
	references(t, func(t *testing.T, r reference) {
		value := secret.Random(32)
		defer value.Wipe()
		pass := base64.StdEncoding.EncodeToString(value.Bytes())
		sealed := talosAsks(t, "seal", r, value.Bytes())
		d := blank(t, plain(), diskSize)
		if err := provider.Encrypt(t.Context(), d.path, encryption.NewKey(0, []byte(pass))); err != nil {
			t.Fatal(err)
		}
		d.born(pass)
		if err := provider.SetToken(t.Context(), d.path, 0, newKMSToken(string(sealed))); err != nil {
			t.Fatal(err)
		}
		got, err := r.ours(t).Recover(t.Context(), keys.Request{}, d.kmsToken(0))
		if err != nil {
			t.Fatal(err)
		}
		defer got.Wipe()
		if !d.opensHere(string(got.Bytes()), 0) || !d.opensThere(string(got.Bytes()), 0) {
			t.Error("what our provider recovers does not open the slot")
		}
	})
}

// TestKMSWrong: what the reference server says of blobs that it cannot open.
func TestKMSWrong(t *testing.T) {
	programs := build(t)
	a, b := startReference(t, programs, "", "", ""), startReference(t, programs, "", "", "")
	pass, token, err := a.ours(t).Enroll(t.Context(), keys.Request{})
	if err != nil {
		t.Fatal(err)
	}
	defer pass.Wipe()
	// Another server's blob: random bytes that open nothing, and no error.
	other, err := b.ours(t).Recover(t.Context(), keys.Request{}, token)
	if err != nil || other.Equal(pass) || other.Len() != pass.Len() {
		t.Errorf("another server: the same %v, %d bytes, %v", other.Equal(pass), other.Len(), err)
	}
	other.Wipe()
	short := json.RawMessage(`{"UserData":{"sealedData":"c2hvcnQ="},"type":"sideroKMS","keyslots":[]}`)
	if _, err := a.ours(t).Recover(t.Context(), keys.Request{}, short); keys.Class(err) != keys.ErrMalformed {
		t.Errorf("a blob of another length: %v", err)
	}
	// Plaintext and TLS do not meet.
	secure := startSecure(t, programs)
	secure.endpoint, secure.ca = strings.Replace(secure.endpoint, "https:", "grpc:", 1), ""
	opts := kms.Options{Endpoints: []string{secure.endpoint}, NodeUUID: kmsNode, Budget: 500 * time.Millisecond}
	p, err := kms.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Enroll(t.Context(), keys.Request{}); keys.Class(err) != keys.ErrUnavailable {
		t.Errorf("plaintext to TLS: %v", err)
	}
}
