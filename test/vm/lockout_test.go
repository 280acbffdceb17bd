//go:build vm

package vm_test

import (
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/test/vm/machine"
	"github.com/cryptctl/cryptctl/test/vm/wire"
	"github.com/cryptctl/cryptctl/tpm"
)

// lockout is a machine that is not as it was when the keys were sealed. The TPM's
// key opens neither volume then, each for the reason given, and the other key
// does. STATE's key is sealed anew where that is allowed, EPHEMERAL's never.
type lockout struct {
	name     string
	image    variant // default genuine
	insecure bool    // Secure Boot is off
	tamper   func(t *testing.T, n *secureNode)
	extend   bool // PCR 7 is extended before the daemon starts

	state, ephemeral string // reasons
	healed           bool   // STATE's key
	stays            string // why it is not healed, where that was tried
	again            bool   // look at the next boot as well
}

func lockouts() []lockout {
	all := func(r tpm.Reason, c lockout) lockout {
		c.state, c.ephemeral = string(r), string(r)
		return c
	}
	return []lockout{
		all(tpm.Cleared, lockout{
			name: "TPM cleared", healed: true, again: true,
			tamper: func(t *testing.T, n *secureNode) { n.tpm.Clear(t) },
		}),
		all(tpm.OtherTPM, lockout{
			name: "another TPM", stays: "the key would move to another machine",
			tamper: func(t *testing.T, n *secureNode) { n.tpm = machine.NewTPM(t) },
		}),
		all(tpm.PCRChanged+": another value than when the key was sealed: PCR 7", lockout{name: "PCR 7 extended", image: updated, extend: true, stays: "the event log does not account for PCR 7"}),
		all(tpm.SignatureMissing, lockout{name: "another command line", image: otherWords}),
		all(tpm.SignatureForeign, lockout{name: "policy signed by another key", image: otherPolicy, healed: true}),
		{
			name: "Secure Boot off", insecure: true, stays: "not sealed anew: denied: Secure Boot is off",
			state: "PCR 7 (Secure Boot state and keys)", ephemeral: "nothing is unsealed: denied: Secure Boot is off",
		},
	}
}

func (c lockout) run(t *testing.T, n secureNode) {
	if c.tamper != nil {
		c.tamper(t, &n)
	}
	if c.image == "" {
		c.image = genuine
	}
	was := map[string]string{}
	for _, name := range secureVolumes {
		was[name] = n.disk.slotSum(t, name, 0)
	}
	s := c.boot(t, n)
	for name, reason := range map[string]string{"STATE": c.state, "EPHEMERAL": c.ephemeral} {
		v, outcome := volumeOf(t, s, name), keys.WasBlocked
		if c.healed && name == "STATE" {
			outcome = keys.Replaced
		}
		if v.Phase != node.VolumeOpen || v.Slot != 1 {
			t.Errorf("%s is %s, by slot %d", name, v.Phase, v.Slot)
		}
		became(t, v, 0, outcome, reason)
		became(t, v, 1, keys.Kept, "opens")
		if changed := n.disk.slotSum(t, name, 0) != was[name]; changed != (outcome == keys.Replaced) {
			t.Errorf("%s: slot 0 changed on the disk: %v", name, changed)
		}
	}
	if c.stays != "" {
		became(t, volumeOf(t, s, "STATE"), 0, keys.WasBlocked, c.stays)
	}
	if c.again {
		c.afterwards(t, n)
	}
}

// boot boots the node and switches it off again.
func (c lockout) boot(t *testing.T, n secureNode) node.Status {
	config := n.config(t, c.image)
	config.Firmware.Insecure = c.insecure
	if c.extend {
		g := boot(t, config)
		g.do(t, "extend", wire.Extend{PCR: 7, Event: []byte("what the firmware does not know")}, nil)
		s, _ := g.bootDisk(t, "/dev/vda")
		g.kept(t, "/r/var/file")
		g.shut(t)
		g.PowerOff()
		return s
	}
	g := bootAs(t, config, node.Running)
	s := g.status(t)
	g.kept(t, "/var/file")
	g.PowerOff()
	return s
}

// afterwards: what was sealed anew opens without help, and what was not is still
// locked out for the same reason.
func (c lockout) afterwards(t *testing.T, n secureNode) {
	n.disk.withoutSlot(t, 1, "STATE")
	g := bootAs(t, n.config(t, c.image), node.Running)
	s := g.status(t)
	state, ephemeral := volumeOf(t, s, "STATE"), volumeOf(t, s, "EPHEMERAL")
	if state.Slot != 0 || ephemeral.Slot != 1 {
		t.Errorf("on the next boot slots %d and %d open", state.Slot, ephemeral.Slot)
	}
	became(t, state, 0, keys.Kept, "opens")
	became(t, ephemeral, 0, keys.WasBlocked, c.ephemeral)
	g.kept(t, "/var/file")
	g.PowerOff()
}
