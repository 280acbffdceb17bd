package tpm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// TestOpenFirst: the reason of each path is told.
func TestOpenFirst(t *testing.T) {
	t.Parallel()
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := openFirst(filepath.Join(t.TempDir(), "none"), plain)
	if err == nil || !strings.Contains(err.Error(), "no such file") || !strings.Contains(err.Error(), "is not a device") {
		t.Errorf("neither is a TPM: %v", err)
	}
	if dev, err := openFirst("/dev/null"); err != nil {
		t.Errorf("a device: %v", err)
	} else {
		dev.Close()
	}
}

// TestOpenBlocking: a read of a TPM waits for the answer. What can be polled, as
// a terminal and a TPM can, must not be opened as Go opens it by itself.
func TestOpenBlocking(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(string) (*os.File, error){
		"blocking":      openBlocking,
		"non-blocking?": func(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDWR, 0) },
	} {
		f, err := open("/dev/ptmx")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var flags int
		if err := raw.Control(func(fd uintptr) { flags, err = unix.FcntlInt(fd, unix.F_GETFL, 0) }); err != nil {
			t.Fatal(err)
		}
		if err != nil || flags&unix.O_NONBLOCK != 0 != (name != "blocking") {
			t.Errorf("%s: flags %#x, %v", name, flags, err)
		}
	}
}

// TestWellFormed: answers that are not as long as they say reach no decoder.
func TestWellFormed(t *testing.T) {
	t.Parallel()
	good := tpmtest.Failed(tpm2.TPMRCSuccess)
	for name, test := range map[string]struct {
		answer []byte
		text   string
	}{
		"nil":             {nil, "an answer of 0 bytes"},
		"half a header":   {good[:5], "an answer of 5 bytes"},
		"more than said":  {append(bytes.Clone(good), 0), "says it has 10"},
		"less than said":  {append(append([]byte{}, 0x80, 1, 0, 0, 0, 11), good[6:]...), "says it has 11"},
		"2^32-1, as said": {append(append([]byte{}, 0x80, 1, 0xff, 0xff, 0xff, 0xff), good[6:]...), "says it has 4294967295"},
		"giant":           {make([]byte, maxAnswer+1), "an answer of 4097 bytes"},
	} {
		asked := 0
		liar := &tpmtest.Liar{Answer: func(int, []byte, func() ([]byte, error)) ([]byte, error) {
			asked++
			return test.answer, nil
		}}
		l := &link{context.Background(), liar}
		if got, err := l.Send(make([]byte, headerSize)); err == nil || got != nil || !strings.Contains(err.Error(), test.text) || asked != 1 {
			t.Errorf("%s: asked %d times, %x, %v", name, asked, got, err)
		}
	}
}

// TestResendIsBounded: a TPM that always wants the command once more is believed
// in the end.
func TestResendIsBounded(t *testing.T) {
	t.Parallel()
	asked := 0
	liar := &tpmtest.Liar{Answer: func(int, []byte, func() ([]byte, error)) ([]byte, error) {
		asked++
		return tpmtest.Failed(tpm2.TPMRCRetry), nil
	}}
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		l := &link{t.Context(), liar}
		_, err := tpm2.GetRandom{BytesRequested: 8}.Execute(l)
		if !errors.Is(err, tpm2.TPMRCRetry) || asked != maxResends+1 {
			t.Errorf("asked %d times: %v", asked, err)
		}
		if d := time.Since(begin); d < time.Second || d > 3*time.Second {
			t.Errorf("resent for %s", d)
		}
	})
}
