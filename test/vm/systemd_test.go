//go:build vm

package vm_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/test/vm/machine"
	"github.com/cryptctl/cryptctl/test/vm/wire"
	"github.com/cryptctl/cryptctl/tpm"
)

// systemdCryptsetup is the program that boots of systemd open volumes with. It
// loads the TPM's libraries itself.
const systemdCryptsetup = "/lib/systemd/systemd-cryptsetup"

func withSystemd(i machine.Initramfs) machine.Initramfs {
	i.Loaded = append(i.Loaded, systemdCryptsetup)
	const libraries = "/lib/x86_64-linux-gnu/"
	for _, name := range []string{
		"libtss2-esys.so.0", "libtss2-rc.so.0", "libtss2-mu.so.0", "libtss2-tcti-device.so.0",
		"cryptsetup/libcryptsetup-token-systemd-tpm2.so",
	} {
		i.Loaded = append(i.Loaded, filepath.Join(libraries, name))
	}
	return i
}

// TestSystemdOpens has systemd open a volume that was sealed here for it, and
// refuse to once the TPM's state is another.
func TestSystemdOpens(t *testing.T) {
	t.Parallel()
	initramfs, err := image.systemd()
	if err != nil {
		t.Fatal(err)
	}
	g := boot(t, machine.Config{
		Initramfs: initramfs, TPM: machine.NewTPM(t), Disks: []*machine.Disk{machine.NewDisk(t, 20<<20)},
	})
	g.do(t, "extend", wire.Extend{PCR: 7, Event: []byte("what firmware would say of Secure Boot")}, nil)
	g.do(t, "seal", wire.Seal{Device: "/dev/vda", Format: string(tpm.Systemd), PCRs: []int{7}}, nil)
	attach := []string{systemdCryptsetup, "attach", "sealed", "/dev/vda", "none", "tpm2-device=/dev/tpmrm0,headless=true"}
	g.run(t, attach...)
	if !g.exists(t, "/dev/mapper/sealed") {
		t.Error("systemd says that the volume is open, and it is not")
	}
	g.run(t, systemdCryptsetup, "detach", "sealed")

	g.do(t, "extend", wire.Extend{PCR: 7, Event: []byte("something else")}, nil)
	ran, err := g.Run("", attach...)
	if err != nil {
		t.Fatal(err)
	}
	if ran.Code == 0 || g.exists(t, "/dev/mapper/sealed") || !strings.Contains(ran.Err, "policy digest does not match") {
		t.Errorf("with another PCR 7 systemd does not refuse for the policy: %+v", ran)
	}
	g.PowerOff()
}
