//go:build vm

package vm_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/test/vm/machine"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// TestPowerCut kills a machine while it writes. What it had synced is there in
// the next one, which has a TPM: both are what later scenarios stand on.
func TestPowerCut(t *testing.T) {
	config := machine.Config{Disks: []*machine.Disk{machine.NewDisk(t, 64<<20)}, TPM: machine.NewTPM(t)}
	mnt := wire.Mount{Source: "/dev/mapper/data", Target: "/mnt/data", Type: "ext4"}
	content := func(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "file %d ", i), 1000) }
	path := func(i int) string { return fmt.Sprintf("/mnt/data/%d", i) }

	first := boot(t, config)
	first.do(t, "format", wire.Format{Device: "/dev/vda", Passphrase: passphrase}, nil)
	first.activate(t, "/dev/vda", mapping.Options{Name: "data"})
	first.run(t, "mkfs.ext4", mnt.Source)
	first.do(t, "mount", mnt, nil)
	time.AfterFunc(time.Second, first.Kill)
	synced := 0
	for first.Call("write", wire.File{Path: path(synced), Content: content(synced)}, nil) == nil {
		synced++
	}
	if reason := first.Off(); reason != "" || synced == 0 {
		t.Fatalf("the machine went off by itself (%q), after %d files", reason, synced)
	}
	t.Logf("power cut after %d synced files", synced)

	second := boot(t, config)
	second.activate(t, "/dev/vda", mapping.Options{Name: "data"})
	second.do(t, "mount", mnt, nil)
	for i := range synced {
		var f wire.File
		second.do(t, "read", wire.File{Path: path(i)}, &f)
		if !bytes.Equal(f.Content, content(i)) {
			t.Errorf("file %d of %d has %d bytes, and not what was written", i, synced, len(f.Content))
		}
	}
	for _, device := range []string{"/dev/tpm0", "/dev/tpmrm0"} {
		if !second.exists(t, device) {
			t.Errorf("%s is not there", device)
		}
	}
	second.PowerOff()
}
