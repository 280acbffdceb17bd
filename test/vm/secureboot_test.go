//go:build vm

package vm_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/test/vm/machine"
	"github.com/cryptctl/cryptctl/test/vm/wire"
	"github.com/cryptctl/cryptctl/tpm"
)

// secureNode is a node with a TPM that starts by firmware.
type secureNode struct {
	disk *nodeDisk
	tpm  *machine.TPM
}

// secureConfig has the TPM's key in slot 0 and a passphrase in slot 1. They differ
// in what becomes of a TPM's key that does not open any more, and in whether the
// key is asked for with Secure Boot off.
func secureConfig() machineConfig {
	return machineConfig{
		documents: true,
		state:     keySet{0: sealed("checkSecurebootStatusOnEnroll: true, reseal: true"), 1: "state word"},
		ephemeral: keySet{0: sealed("checkSecurebootStatusOnEnroll: true, checkSecurebootStatusOnUnseal: true"), 1: "ephemeral word"},
	}
}

var secureVolumes = []string{"STATE", "EPHEMERAL"}

func signedImage(t *testing.T, v variant) *bootImage {
	t.Helper()
	b, err := image.signed[v]()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// copy returns another such node, which is off as this one.
func (n secureNode) copy(t *testing.T) secureNode {
	t.Helper()
	return secureNode{n.disk.copy(t), n.tpm.Copy(t)}
}

// config is the machine of a node and an image.
func (n secureNode) config(t *testing.T, v variant) machine.Config {
	t.Helper()
	c := nodeConfig(t, n.disk.Disk)
	c.TPM, c.Firmware = n.tpm, &machine.Firmware{ESP: signedImage(t, v).esp}
	return c
}

// TestSecureBoot brings a node up whose volumes the TPM opens: on a blank disk,
// again without any other key, and after an update of the image. Then it shows
// what does not open them.
func TestSecureBoot(t *testing.T) {
	t.Parallel()
	n := secureNode{newNodeDisk(t), machine.NewTPM(t)}
	g := bootAs(t, n.config(t, genuine), node.Maintenance)
	g.configure(t, secureConfig(), node.Auto)
	g.open(t, true, secureVolumes...)
	g.put(t, "/var/file")
	dumps := []*memory{g.dump(t, "the boot that sealed")}
	g.PowerOff()

	dumps = append(dumps, n.opensAlone(t))
	n.opensUpdated(t, dumps)
	for _, c := range lockouts() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, n.copy(t))
		})
	}
}

// opensAlone boots the node with no key but the TPM's, and looks at what the boot
// left behind. It returns a dump of the machine's memory.
func (n secureNode) opensAlone(t *testing.T) *memory {
	t.Helper()
	n.disk.withoutSlot(t, 1, secureVolumes...)
	g := bootAs(t, n.config(t, genuine), node.Running)
	s := g.open(t, false, secureVolumes...)
	for _, name := range secureVolumes {
		v := volumeOf(t, s, name)
		if v.Slot != 0 {
			t.Errorf("%s was opened by slot %d", name, v.Slot)
		}
		became(t, v, 0, keys.Kept, "opens")
		became(t, v, 1, keys.Added, "not there")
	}
	g.kept(t, "/var/file")
	dump := g.dump(t, "the boot that unsealed")
	g.measured(t, signedImage(t, genuine), 15)
	for _, u := range sealedSlots("/dev/vda") {
		g.refuse(t, wire.Kind(tpm.Latched), "ends unsealing for this boot", "unseal", u)
	}
	g.PowerOff()
	return dump
}

// opensUpdated boots another image whose PCR policy is signed by the same key. Its
// process 1 is the guest program, which gets hold of the secrets before anything
// closes the latch, and looks for them in the memory of the boots before.
func (n secureNode) opensUpdated(t *testing.T, before []*memory) {
	t.Helper()
	g := boot(t, n.config(t, updated))
	g.measured(t, signedImage(t, updated))
	for _, u := range sealedSlots("/dev/vda") {
		var got wire.Unsealed
		g.do(t, "unseal", u, &got)
		for _, m := range before {
			found := m.find(t, u.Volume+"'s sealed key", got.Sealed)
			for _, text := range append(found, m.find(t, u.Volume+"'s passphrase", got.Passphrase)...) {
				t.Error(text)
			}
		}
	}
	for _, m := range before {
		os.Remove(m.path) // it is large, and may be in memory itself
	}
	s, _ := g.bootDisk(t, "/dev/vda")
	for _, name := range secureVolumes {
		became(t, volumeOf(t, s, name), 0, keys.Kept, "opens")
	}
	g.kept(t, "/r/var/file")
	g.shut(t)
	g.PowerOff()
}

// became fails unless the last reconciliation did that to a slot, for a reason
// that has the text in it.
func became(t *testing.T, v node.VolumeStatus, slot int, outcome keys.Outcome, text string) {
	t.Helper()
	for _, r := range v.Slots {
		if r.Slot == slot {
			if r.Outcome != outcome || !strings.Contains(r.Reason, text) {
				t.Errorf("%s, slot %d: %s (%s); want %s, %q", v.Name, slot, r.Outcome, r.Reason, outcome, text)
			}
			return
		}
	}
	t.Errorf("%s: nothing is said of slot %d: %+v", v.Name, slot, v)
}

// sealedSlots are the slots of the TPM's keys on a disk.
func sealedSlots(device string) []wire.Unseal {
	return []wire.Unseal{{Device: device + "2", Volume: "STATE"}, {Device: device + "3", Volume: "EPHEMERAL"}}
}

// withoutSlot removes a slot of volumes while the node is off.
func (d *nodeDisk) withoutSlot(t *testing.T, slot int, volumes ...string) {
	t.Helper()
	for _, label := range volumes {
		d.with(t, label, func(dev luks.Device) error {
			h, err := luks.Read(dev)
			if err == nil {
				_, err = h.Commit(keys.RemoveSlot(h, slot)...)
			}
			return err
		})
	}
}

// slotSum tells whether a slot is as it was.
func (d *nodeDisk) slotSum(t *testing.T, label string, slot int) (sum string) {
	t.Helper()
	d.with(t, label, func(dev luks.Device) error {
		h, err := luks.Read(dev)
		if err != nil {
			return err
		}
		got, err := h.KeyslotSum(slot)
		sum = fmt.Sprintf("%x %s", got, keys.TokenOf(h, slot))
		return err
	})
	return sum
}

// TestUnsignedImage: the firmware does not start what nobody signed.
func TestUnsignedImage(t *testing.T) {
	t.Parallel()
	m := start(t, secureNode{newNodeDisk(t), machine.NewTPM(t)}.config(t, notSigned))
	m.Expect(`BdsDxe: failed to load .*: Access Denied\n`)
	m.Expect(`BdsDxe: No bootable option`)
	m.Kill()
	if strings.Contains(m.Console.String(), "EFI stub") {
		t.Error("it runs all the same")
	}
}
