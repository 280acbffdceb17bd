package node_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	machine "github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/logging"
	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/pki"
)

// newSecureKeyServer is a key server with TLS, and who issued its certificate.
func newSecureKeyServer(t *testing.T) (*keyServer, string) {
	t.Helper()
	a, ca, err := pki.NewAuthority("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := a.Issue(pki.Request{Name: "kms", Server: true, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	s := newKeyServer(t, grpc.Creds(credentials.NewServerTLSFromCert(&certificate)))
	s.endpoint = strings.Replace(s.endpoint, "grpc:", "https:", 1)
	return s, string(ca.Cert)
}

// roots is a document by which an authority is trusted.
func roots(ca string) string {
	return "---\napiVersion: v1alpha1\nkind: TrustedRootsConfig\nname: ours\ncertificates: |\n  " + strings.ReplaceAll(strings.TrimSpace(ca), "\n", "\n  ") + "\n"
}

// TestTrustedRoots: an authority that the configuration trusts is one for its key
// servers, also for the keys of a former configuration, whatever the new one trusts;
// not for those of STATE, which could not be asked at the next boot.
func TestTrustedRoots(t *testing.T) {
	s, ca := newSecureKeyServer(t)
	sealed := strings.Replace(config(k("s0"), k("e0")), "static:\n        passphrase: \"e0\"", fmt.Sprintf("kms: {endpoint: %q}", s.endpoint), 1)
	if !strings.Contains(sealed, "kms:") {
		t.Fatal(sealed)
	}
	r := newRig(t)
	r.mustReboot(t)
	r.apply(t, sealed+roots(ca), node.Auto)
	r.wantOpen(t, "STATE", "EPHEMERAL")
	r.write(t, "EPHEMERAL")
	r.mustReboot(t)
	r.wantOpen(t, "EPHEMERAL")

	r.apply(t, s.served(config(k("s0"), k("e0"))), node.Staged) // without the authority
	r.mustReboot(t)
	r.wantPhase(t, node.Running)
	if !r.has(t, "EPHEMERAL") || !r.opensWith(t, "EPHEMERAL", "e0") {
		t.Errorf("EPHEMERAL did not get its new key: %+v", r.volume(t, "EPHEMERAL"))
	}
	r.settled(t)
	r.slot(t, 5, keys.WasBlocked, "certificate")

	r.apply(t, s.served(config(k("s0"), k("e0")))+roots(ca), node.Auto)
	r.settled(t)
	for name, want := range map[string]keys.Outcome{"STATE": keys.WasBlocked, "EPHEMERAL": keys.Added} {
		for _, slot := range r.volume(t, name).Slots {
			if slot.Slot == 5 && slot.Outcome != want {
				t.Errorf("%s: %+v, want %s", name, slot, want)
			}
		}
	}
}

// servedOnly is a configuration whose EPHEMERAL only a key server opens.
func (s *keyServer) servedOnly(t *testing.T) string {
	t.Helper()
	text := strings.Replace(config(k("s0"), k("e0")), "static:\n        passphrase: \"e0\"", fmt.Sprintf("kms: {endpoint: %q}", s.endpoint), 1)
	if !strings.Contains(text, "kms:") {
		t.Fatal(text)
	}
	return text
}

// TestRootsRemoved: the trusted roots, without which no key server is asked, are taken
// away, and nothing else changes. That is a change of the keys, and what opens the
// volume stays until another key does.
func TestRootsRemoved(t *testing.T) {
	t.Parallel()
	for _, mode := range []node.Mode{node.NoReboot, node.Staged} {
		s, ca := newSecureKeyServer(t)
		r := newRig(t)
		r.opts.Machine.KMS.Budget = 2 * time.Second // for what has to succeed
		r.mustReboot(t)
		r.apply(t, s.servedOnly(t)+roots(ca), node.Auto)
		r.wantOpen(t, "STATE", "EPHEMERAL")
		r.write(t, "EPHEMERAL")
		r.mustReboot(t) // all slots are in step
		a := r.apply(t, s.servedOnly(t), mode)
		want := "EPHEMERAL, TrustedRootsConfig: keys (now)"
		if mode == node.Staged {
			want = "EPHEMERAL, TrustedRootsConfig: keys (next boot)"
		}
		if got := lines(a); len(got) != 1 || got[0] != want {
			t.Errorf("%s: changes %q, want %q", mode, got, want)
		}
		for range 3 {
			if mode == node.NoReboot { // it is asked at once
				r.blocked(t)
			}
			mode = node.NoReboot
			r.mustReboot(t)
			r.settled(t)
			r.blocked(t)
		}
		r.apply(t, s.servedOnly(t)+roots(ca), node.Auto)
		r.wantOpen(t, "EPHEMERAL")
		if r.forgotten(t); !r.has(t, "EPHEMERAL") {
			t.Error("data lost")
		}
	}
}

// blocked fails unless EPHEMERAL is open, and its only slot said to be one that
// nobody can check.
func (r *rig) blocked(t *testing.T) {
	t.Helper()
	v := r.volume(t, "EPHEMERAL")
	if v.Phase != node.VolumeOpen || len(v.Errors) != 1 || !strings.HasPrefix(v.Errors[0], "slot 0: ") || !strings.Contains(v.Errors[0], "certificate") {
		t.Errorf("%+v", v)
	}
}

// TestRootsOfOthers: trusted roots are no part of keys that do not need them.
func TestRootsOfOthers(t *testing.T) {
	t.Parallel()
	_, ca := newSecureKeyServer(t)
	s := newKeyServer(t)
	own := strings.ReplaceAll(s.served(config(nil, k("e0"))), "}", fmt.Sprintf(", authorities: %q}", ca))
	for _, conf := range []string{config(k("s0"), k("e0")), own} {
		r := running(t, conf)
		before := r.image(t, "EPHEMERAL")
		if a := r.apply(t, conf+roots(ca), node.NoReboot); len(a.Changes) > 0 {
			t.Errorf("changes %q", lines(a))
		}
		if !bytes.Equal(before, r.image(t, "EPHEMERAL")) {
			t.Error("EPHEMERAL was written")
		}
		if left, _ := filepath.Glob(filepath.Join(r.dir("STATE"), "cryptctl/former/*")); len(left) > 0 {
			t.Errorf("former configurations left: %q", left)
		}
	}
}

// TestConfigured: who asked is told of each configuration that comes into force, and
// of none that does not.
func TestConfigured(t *testing.T) {
	conf := func(host string) string {
		log := fmt.Sprintf("  logging: {destinations: [{endpoint: 'udp://%s:1', format: json_lines}]}\n", host)
		return strings.Replace(config(k("s0"), k("e0")), "  type: worker\n", "  type: worker\n"+log, 1)
	}
	var told []string
	r := newRig(t)
	r.opts.Configured = func(c *machine.Config) {
		for _, d := range c.Logging {
			told = append(told, d.String())
		}
	}
	want := func(when string, hosts ...string) {
		t.Helper()
		var all []string
		for _, h := range hosts {
			all = append(all, logging.Destination{Network: "udp", Address: h + ":1"}.String())
		}
		if fmt.Sprint(told) != fmt.Sprint(all) {
			t.Errorf("%s: told %v, want %v", when, told, all)
		}
		told = nil
	}
	r.mustReboot(t)
	want("in maintenance")
	r.apply(t, conf("one"), node.Auto)
	want("applied", "one")
	r.apply(t, conf("two"), node.Staged)
	want("staged")
	if _, err := r.Apply(t.Context(), []byte("machine: {logging: {destinations: 7}}"), node.Auto); err == nil {
		t.Error("a broken configuration is applied")
	}
	want("refused")
	r.mustReboot(t)
	want("booted", "two")
	r.apply(t, conf("three"), node.Try)
	want("on trial", "three")
	r.mustReboot(t)
	want("after the trial", "two")
}
