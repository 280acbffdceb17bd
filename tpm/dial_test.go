package tpm_test

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

func TestDial(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]struct{ ok, machine bool }{
		"":                                   {true, true},
		"/dev/tpmrm0":                        {true, true},
		"swtpm:/run/swtpm.sock":              {true, false},
		"swtpm:./swtpm.sock":                 {true, false},
		"swtpm:":                             {false, false},
		"swtpm:host=127.0.0.1,port=2321":     {false, false},
		"tpm0":                               {false, true},
		"device:/dev/tpmrm0":                 {false, true},
		strings.Repeat("x", 10) + ":/socket": {false, true},
	} {
		d, err := tpm.Dial(spec)
		if (err == nil) != want.ok || (d != nil) != want.ok || tpm.IsMachine(spec) != want.machine {
			t.Errorf("%q: %v, of the machine %v", spec, err, tpm.IsMachine(spec))
		}
	}
}

// TestDialSoftware: several devices take turns at one socket, a restart does not
// disturb them, and a socket that is gone is no TPM.
func TestDialSoftware(t *testing.T) {
	t.Parallel()
	m := tpmtest.StartShared(t)
	spec := "swtpm:" + m.Release()
	d, err := tpm.Dial(spec)
	if err != nil {
		t.Fatal(err)
	}
	tpmtest.Extend(t, m, 7, "x")
	for range 2 {
		id, err := d.Identity(t.Context())
		if err != nil || id.Manufacturer != "IBM" || id.Model != "SW TPM" {
			t.Errorf("%+v, %v", id, err)
		}
		m.Restart()
	}
	gone, _ := tpm.Dial("swtpm:" + filepath.Join(t.TempDir(), "none"))
	if _, err := gone.Identity(t.Context()); tpm.ReasonOf(err) != tpm.NoTPM {
		t.Errorf("a socket that is not there: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	plain, _ := tpm.Dial(file)
	if _, err := plain.Identity(t.Context()); tpm.ReasonOf(err) != tpm.NoTPM {
		t.Errorf("a file: %v", err)
	}
}

// TestStream: an answer may come in pieces; one that ends early, or says that it
// is longer than a TPM's can be, is a fault and takes no memory.
func TestStream(t *testing.T) {
	t.Parallel()
	whole := binary.BigEndian.AppendUint32([]byte{0x80, 0x01}, 10)
	whole = binary.BigEndian.AppendUint32(whole, 0x101) // TPM_RC_FAILURE
	long := binary.BigEndian.AppendUint32([]byte{0x80, 0x01}, 1<<31)
	for name, c := range map[string]struct {
		answer []byte
		want   string
	}{
		"pieces":   {whole, "TPM_RC_FAILURE"},
		"cut off":  {whole[:9], "EOF"},
		"nothing":  {nil, "EOF"},
		"too long": {append(long, 0, 0, 0, 0), "an answer that says it has 2147483648 bytes; 10 to 4096 are possible"},
		"too short": {
			append(binary.BigEndian.AppendUint32([]byte{0x80, 0x01}, 9), 0, 0, 0, 0),
			"an answer that says it has 9 bytes",
		},
	} {
		dir, err := os.MkdirTemp("", "s") // a socket's path has 108 bytes
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		l, err := net.Listen("unix", dir+"/s")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			io.ReadFull(conn, make([]byte, 22)) // TPM2_GetCapability
			for _, b := range c.answer {
				conn.Write([]byte{b})
			}
		}()
		d, err := tpm.Dial("swtpm:" + dir + "/s")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Identity(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || tpm.ReasonOf(err) != tpm.Faulty {
			t.Errorf("%s: %v", name, err)
		}
	}
}
