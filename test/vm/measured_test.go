//go:build vm

package vm_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/test/vm/wire"
	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// pcrs returns the machine's SHA-256 registers.
func (g *guest) pcrs(t *testing.T) map[int][]byte {
	t.Helper()
	var argv []string
	for index := range pcr.Count {
		argv = append(argv, fmt.Sprintf("/sys/class/tpm/tpm0/pcr-sha256/%d", index))
	}
	values := map[int][]byte{}
	for index, text := range strings.Fields(g.run(t, append([]string{"cat"}, argv...)...)) {
		value, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		values[index] = value
	}
	return values
}

// measured fails unless PCR 11 is what was predicted of the image, and the log of
// the boot accounts for every register, but for 10, which the kernel extends when
// it is up, and those that were extended since.
func (g *guest) measured(t *testing.T, image *bootImage, since ...int) {
	t.Helper()
	now := g.pcrs(t)
	if !bytes.Equal(now[11], image.Predicted) {
		t.Errorf("PCR 11 is %x, predicted was %x", now[11], image.Predicted)
	}
	var file wire.File
	g.do(t, "read", wire.File{Path: "/sys/kernel/security/tpm0/binary_bios_measurements"}, &file)
	log, err := eventlog.Parse(file.Content)
	if err != nil {
		t.Fatalf("the event log: %v", err)
	}
	logged, err := log.Replay(pcr.SHA256)
	if err != nil {
		t.Fatalf("the event log: %v", err)
	}
	for _, index := range append(since, 10) {
		if bytes.Equal(now[index], logged[index]) {
			t.Errorf("PCR %d was not extended since the boot", index)
		}
		delete(now, index)
		delete(logged, index)
	}
	if diff := cmp.Diff(now, logged); diff != "" {
		t.Errorf("PCRs as they are (-) and as the log gives them (+):\n%s", diff)
	}
}
