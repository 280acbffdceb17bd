package wire_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/cryptctl/cryptctl/kms/wire"
)

// TestGenerated: the checked-in code is what the .proto files make.
func TestGenerated(t *testing.T) {
	out := t.TempDir()
	if text, err := exec.Command("./generate.sh", out).CombinedOutput(); err != nil {
		t.Fatalf("generate.sh: %v\n%s", err, text)
	}
	made, err := filepath.Glob(filepath.Join(out, "kms/wire/*"))
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Glob("*.pb.go")
	if err != nil {
		t.Fatal(err)
	}
	if len(made) != 4 || len(here) != len(made) {
		t.Fatalf("made %q, there are %q", made, here)
	}
	for _, path := range made {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Base(path)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the .proto file makes (%v); run go generate ./kms/wire", filepath.Base(path), err)
		}
	}
}

// TestTalosNames: what goes over the wire to a Talos node's server, to the byte.
func TestTalosNames(t *testing.T) {
	if got := []string{wire.KMSService_Seal_FullMethodName, wire.KMSService_Unseal_FullMethodName}; !slices.Equal(got, []string{"/sidero.kms.KMSService/Seal", "/sidero.kms.KMSService/Unseal"}) {
		t.Errorf("the calls are %q", got)
	}
	for _, test := range []struct {
		m    proto.Message
		want string
	}{
		{&wire.Request{NodeUuid: "ab", Data: []byte{7}}, "\x0a\x02ab\x12\x01\x07"},
		{&wire.Response{Data: []byte{8, 9}}, "\x0a\x02\x08\x09"},
	} {
		if got, err := proto.Marshal(test.m); err != nil || string(got) != test.want {
			t.Errorf("%T is %x (%v), must be %x", test.m, got, err, test.want)
		}
	}
	if n := len(wire.KMSService_ServiceDesc.Methods); n != 2 {
		t.Errorf("the service has %d calls", n)
	}
}
