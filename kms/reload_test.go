package kms_test

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/pki"
)

// put replaces a server's or client's files.
func put(t *testing.T, f pki.Files, ca []byte, pair pki.Pair) {
	t.Helper()
	for path, content := range map[string][]byte{f.Cert: pair.Cert, f.Key: pair.Key.Bytes(), f.Authorities: ca} {
		if err := os.WriteFile(path+".new", content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

func filesIn(t *testing.T) pki.Files {
	dir := t.TempDir()
	return pki.Files{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), Authorities: filepath.Join(dir, "ca.crt")}
}

// TestReloader: gRPC servers and clients follow their files, certificates and
// authorities alike, while they run.
func TestReloader(t *testing.T) {
	t.Parallel()
	one, two := newParty(t), newParty(t)
	server, client := filesIn(t), filesIn(t)
	put(t, server, one.ca, one.server)
	put(t, client, one.ca, one.client)
	reload := func(f pki.Files) *pki.Reloader {
		r, err := pki.NewReloader(f)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	f := newFake()
	endpoint := "https://" + serve(t, f, reload(server).Server())
	e, err := kms.ParseEndpoint(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	follows := reload(client)
	seal := func() codes.Code {
		cc, err := kms.Dial(e, follows.Client())
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		_, err = wire.NewKMSServiceClient(cc).Seal(t.Context(), &wire.Request{NodeUuid: nodeUUID, Data: make([]byte, 32)})
		return status.Code(err)
	}
	node := func(p party) *kms.Provider {
		return provider(t, func(o *kms.Options) {
			o.Authorities, o.Certificate, o.Key, o.Budget = p.ca, p.client.Cert, keyOf(p.client), short
		}, endpoint)
	}
	if code := seal(); code != codes.OK {
		t.Errorf("at first: %v", code)
	}
	works(t, node(one))
	put(t, server, two.ca, two.server)
	if code := seal(); code != codes.Unavailable {
		t.Errorf("a client of the former authority: %v", code)
	}
	works(t, node(two))
	put(t, client, two.ca, two.client)
	if code := seal(); code != codes.OK {
		t.Errorf("after it followed: %v", code)
	}
}
