package node_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/provide"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// sealedRig is a rig with a TPM, into which each boot measures what it boots.
type sealedRig struct {
	*rig
	tpm      *tpmtest.Machine
	firmware string // what the next boot measures into PCR 7
	image    string // and into PCR 11
}

func newSealedRig(t *testing.T) *sealedRig {
	t.Helper()
	s := &sealedRig{rig: newRig(t), tpm: tpmtest.Start(t), firmware: "keys of the vendor"}
	efi := filepath.Join(t.TempDir(), "efi")
	s.opts.Machine = provide.Machine{
		UUID: nodeUUID, TPM: tpm.NewDevice(s.tpm.Open), Firmware: efi,
		Boot: func() (tpm.Boot, error) { return tpm.Boot{}, nil },
	}
	s.secureBoot(t, true)
	return s
}

func (s *sealedRig) secureBoot(t *testing.T, on bool) {
	t.Helper()
	tpmtest.SecureBoot(t, s.opts.Machine.Firmware, on)
}

// start is a boot, up to where the node's own begins.
func (s *sealedRig) start(t *testing.T) {
	t.Helper()
	s.tpm.Restart()
	tpmtest.Extend(t, s.tpm, 7, s.firmware)
	if s.image != "" {
		tpmtest.Extend(t, s.tpm, 11, s.image)
	}
	s.sys = s.sys.Reboot()
	s.renew()
}

func (s *sealedRig) boots(t *testing.T) {
	t.Helper()
	s.start(t)
	if err := s.Boot(t.Context()); err != nil {
		t.Fatalf("boot: %v", err)
	}
	s.wantPhase(t, node.Running)
}

// latched reports whether nothing can be unsealed any more.
func (s *sealedRig) latched(t *testing.T) bool {
	t.Helper()
	now, err := s.opts.Machine.TPM.ReadPCRs(t.Context(), "sha256", 15)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(now[15], func(b byte) bool { return b != 0 })
}

// sealedConfig has a tpm key in slot 0 of both volumes, with these settings, and
// passphrases after it.
func sealedConfig(settings string, passphrases ...string) string {
	var b strings.Builder
	for _, name := range []string{"STATE", "EPHEMERAL"} {
		fmt.Fprintf(&b, "---\napiVersion: v1alpha1\nkind: VolumeConfig\nname: %s\nencryption:\n  provider: luks2\n  keys:\n    - slot: 0\n      tpm: {%s}\n", name, settings)
		for i, p := range passphrases {
			fmt.Fprintf(&b, "    - slot: %d\n      static: {passphrase: %s}\n", i+1, p)
		}
	}
	return strings.TrimPrefix(b.String(), "---\n")
}

// wantSlot checks the outcome of a slot's reconciliation in both volumes.
func (s *sealedRig) wantSlot(t *testing.T, slot int, want keys.Outcome, words string) {
	t.Helper()
	for _, name := range []string{"STATE", "EPHEMERAL"} {
		slots := s.volume(t, name).Slots
		at := slices.IndexFunc(slots, func(r keys.Result) bool { return r.Slot == slot })
		if at < 0 || slots[at].Outcome != want || !strings.Contains(slots[at].Reason, words) {
			t.Errorf("%s: %+v, want slot %d %s with %q", name, slots, slot, want, words)
		}
	}
}

// installed is a machine whose first boot enrolled its keys.
func installed(t *testing.T, config string) *sealedRig {
	t.Helper()
	s := newSealedRig(t)
	s.start(t)
	if err := s.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantPhase(t, node.Maintenance)
	if s.latched(t) {
		t.Fatal("a node in maintenance has nothing to seal its keys with")
	}
	s.apply(t, config, node.Auto)
	s.wantPhase(t, node.Running)
	s.wantOpen(t, "STATE", "EPHEMERAL")
	return s
}

// TestTPM: the first boot enrolls, the next opens by the TPM alone, and when the
// node is up nothing is unsealed any more.
func TestTPM(t *testing.T) {
	t.Parallel()
	s := installed(t, sealedConfig(""))
	if !s.latched(t) {
		t.Error("the latch is open when the node is up")
	}
	s.write(t, "EPHEMERAL")
	for range 2 {
		s.boots(t)
		s.wantSlot(t, 0, keys.Kept, "")
		if !s.latched(t) || !s.has(t, "EPHEMERAL") {
			t.Errorf("latched %v, data %v", s.latched(t), s.has(t, "EPHEMERAL"))
		}
	}
	s.sys = s.sys.Reboot() // only the mappings: the TPM goes on
	s.renew()
	if err := s.Boot(t.Context()); !errors.Is(err, keys.ErrNoKey) || !strings.Contains(err.Error(), "latch") && !strings.Contains(err.Error(), "PCR 15") {
		t.Errorf("unsealed after the latch was closed: %v", err)
	}
}

// TestHealing: a key that went stale is sealed anew where the configuration says
// so and Secure Boot is on.
func TestHealing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, settings string
		secureBoot     bool
		want           keys.Outcome
		words          string
	}{
		{"reseal", "reseal: true", true, keys.Replaced, "PCR 7"},
		{"reseal without Secure Boot", "reseal: true", false, keys.WasBlocked, "Secure Boot is off"},
		{"no reseal", "", true, keys.WasBlocked, "not allowed by the policy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := installed(t, sealedConfig(test.settings, "recovery"))
			s.firmware = "keys of the vendor, and one more revocation"
			s.secureBoot(t, test.secureBoot)
			s.boots(t)
			s.wantSlot(t, 0, test.want, test.words)
			s.wantSlot(t, 1, keys.Kept, "")
			if !s.latched(t) {
				t.Error("the latch stayed open")
			}
			s.boots(t)
			if healed := test.want == keys.Replaced; healed {
				s.wantSlot(t, 0, keys.Kept, "")
			} else {
				s.wantSlot(t, 0, keys.WasBlocked, test.words)
			}
		})
	}
}

// TestSealingWaits: with the latch closed a tpm key is sealed on the next boot,
// and until then nothing is lost.
func TestSealingWaits(t *testing.T) {
	t.Parallel()
	s := installed(t, sealedConfig("", "recovery"))
	changed := sealedConfig("options: {pcrs: [0, 7]}", "recovery")
	if _, err := s.Apply(t.Context(), []byte(changed), node.NoReboot); !errors.Is(err, node.ErrNeedsMore) {
		t.Errorf("without a reboot: %v", err)
	}
	rotated := sealedConfig("", "another")
	if a := s.apply(t, rotated, node.NoReboot); a.Reboot {
		t.Error("a change of passphrases needs no reboot")
	}
	s.wantSlot(t, 1, keys.Replaced, "")

	tpmtest.Extend(t, s.tpm, 0, "firmware")
	if a := s.apply(t, sealedConfig("options: {pcrs: [7], }, pin: false, reseal: true", "another"), node.Auto); !a.Reboot {
		t.Errorf("%+v needs no reboot", a)
	}
	s.boots(t)
	s.wantOpen(t, "STATE", "EPHEMERAL")
	s.wantSlot(t, 0, keys.Kept, "")

	s.start(t)
	tpmtest.Extend(t, s.tpm, 0, "firmware")
	if err := s.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := s.apply(t, sealedConfig("options: {pcrs: [0, 7]}", "another"), node.Auto); !a.Reboot {
		t.Errorf("%+v needs no reboot", a)
	}
	s.start(t)
	tpmtest.Extend(t, s.tpm, 0, "firmware")
	if err := s.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantOpen(t, "STATE", "EPHEMERAL")
	s.wantSlot(t, 0, keys.Replaced, "[0 7] are configured")
	if left, _ := filepath.Glob(filepath.Join(s.dir("STATE"), "cryptctl/former/*")); len(left) > 0 {
		t.Errorf("former configurations left: %q", left)
	}
}

// TestFirstSealed: a node closes the latch whatever its configuration says, which
// may be one that a stranger put there. So the first tpm key waits for a reboot.
func TestFirstSealed(t *testing.T) {
	t.Parallel()
	s := installed(t, config(k("recovery"), k("recovery")))
	if !s.latched(t) || !s.Status().Latched {
		t.Fatal("the latch is open when the node is up")
	}
	with := strings.ReplaceAll(sealedConfig("", "recovery"), "slot: 0", "slot: 9")
	with = strings.ReplaceAll(strings.ReplaceAll(with, "slot: 1", "slot: 0"), "slot: 9", "slot: 1")
	if _, err := s.Apply(t.Context(), []byte(with), node.NoReboot); !errors.Is(err, node.ErrNeedsMore) {
		t.Errorf("without a reboot: %v", err)
	}
	if a := s.apply(t, with, node.Auto); !a.Reboot {
		t.Errorf("%+v", a)
	}
	s.boots(t)
	s.wantSlot(t, 1, keys.Added, "")
	s.boots(t)
	s.wantSlot(t, 1, keys.Kept, "")
}

// TestOnlySealed: what can be done on a node that only the TPM opens, once its
// latch is closed, and what waits for a reboot.
func TestOnlySealed(t *testing.T) {
	t.Parallel()
	conf := sealedConfig("")
	s := installed(t, conf)
	if a := s.apply(t, conf, node.NoReboot); len(a.Changes) != 0 || a.Reboot {
		t.Errorf("the same configuration: %+v", a)
	}
	s.wantOpen(t, "STATE", "EPHEMERAL")
	if err := s.Boot(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
	s.wantOpen(t, "STATE", "EPHEMERAL")
	with := sealedConfig("", "recovery")
	if _, err := s.Apply(t.Context(), []byte(with), node.NoReboot); !errors.Is(err, node.ErrNeedsMore) || !strings.Contains(err.Error(), "only the TPM opens it") {
		t.Errorf("a recovery key at once: %v", err)
	}
	if a := s.apply(t, with, node.Auto); !a.Reboot {
		t.Errorf("%+v", a)
	}
	s.boots(t)
	s.wantOpen(t, "STATE", "EPHEMERAL")
	s.wantSlot(t, 1, keys.Added, "")
}

// TestRotationBesideSealed: with the latch closed passphrases rotate, and the
// sealed key that cannot be checked now is not said to be off.
func TestRotationBesideSealed(t *testing.T) {
	t.Parallel()
	s := installed(t, sealedConfig("", "first"))
	s.apply(t, sealedConfig("", "second"), node.NoReboot)
	s.wantOpen(t, "STATE", "EPHEMERAL")
	for _, tag := range s.metaTags(t) {
		if tag == 193 {
			t.Error("META keeps the passphrase that was taken away")
		}
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir("STATE"), "cryptctl/former/*")); len(left) > 0 {
		t.Errorf("former configurations left: %q", left)
	}
	if s.opensWith(t, "STATE", "first") || !s.opensWith(t, "STATE", "second") {
		t.Error("the passphrase was not rotated")
	}
	s.boots(t)
	s.wantSlot(t, 0, keys.Kept, "")
}

// TestAwayFromTPM: the configuration that has no tpm keys any more is in force
// before the latch closes.
func TestAwayFromTPM(t *testing.T) {
	t.Parallel()
	s := installed(t, sealedConfig(""))
	s.apply(t, strings.ReplaceAll(config(k("recovery"), k("recovery")), "slot: 0", "slot: 1"), node.Staged)
	s.boots(t)
	s.wantOpen(t, "STATE", "EPHEMERAL")
	s.wantSlot(t, 1, keys.Added, "")
	s.wantSlot(t, 0, keys.Removed, "")
	s.boots(t)
	s.wantSlot(t, 1, keys.Kept, "")
}

// TestLockLater: lockToState that is set on a key that is sealed already.
func TestLockLater(t *testing.T) {
	t.Parallel()
	conf := sealedConfig("", "recovery")
	s := installed(t, conf)
	at := strings.LastIndex(conf, "      tpm: {}")
	locked := conf[:at] + "      lockToState: true\n" + conf[at:]
	if a := s.apply(t, locked, node.Auto); !a.Reboot {
		t.Errorf("%+v", a)
	}
	s.boots(t)
	if v := s.volume(t, "EPHEMERAL"); v.Slots[0].Outcome != keys.Replaced {
		t.Errorf("%+v", v.Slots)
	}
	s.boots(t)
	s.wantSlot(t, 0, keys.Kept, "")
}

// TestSigningKeyOfState: META cannot say which key signs, and STATE opens by what
// its token says.
func TestSigningKeyOfState(t *testing.T) {
	t.Parallel()
	s := newSealedRig(t)
	settings, boot := s.signs(t)
	s.opts.Machine.Boot = boot
	s.image = "kernel"
	s.start(t)
	if err := s.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.apply(t, sealedConfig(settings), node.Auto)
	s.wantPhase(t, node.Running)
	s.boots(t)
	s.image = "another kernel"
	s.boots(t)
	s.wantSlot(t, 0, keys.Kept, "")
}

// TestWrongPINOnce: a PIN that the TPM refuses is not sent again and again, also
// when another key may come back.
func TestWrongPINOnce(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	pin := "1234"
	s := newSealedRig(t)
	s.image = "kernel"
	s.opts.Machine.PIN = func(context.Context) (*secret.Bytes, error) {
		asked.Add(1)
		return secretOf(pin), nil
	}
	settings, boot := s.signs(t)
	s.opts.Machine.Boot = boot
	s.start(t)
	if err := s.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	conf := sealedConfig("pin: true")
	first := strings.Index(conf, "---\n")
	s.apply(t, conf[:first]+"    - slot: 1\n      tpm: {"+settings+"}\n"+conf[first:], node.Auto)
	s.wantPhase(t, node.Running)

	pin = "4321"
	s.opts.Machine.Boot = func() (tpm.Boot, error) { return tpm.Boot{}, nil }
	s.start(t)
	asked.Store(0)
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	err := s.BootUntilUp(ctx, node.Backoff{First: time.Millisecond, Most: time.Millisecond})
	if !errors.Is(err, keys.ErrUnavailable) || !strings.Contains(err.Error(), string(tpm.PINWrong)) || asked.Load() != 1 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
	pin = "1234"
	if err := s.Boot(t.Context()); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

// signs makes a key that signs the present PCR 11 of each boot, and brings the
// signature along but not the key: the settings name it.
func (s *sealedRig) signs(t *testing.T) (settings string, boot func() (tpm.Boot, error)) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	return fmt.Sprintf("signingKey: %q", public), func() (tpm.Boot, error) {
		now, err := s.opts.Machine.TPM.ReadPCRs(context.Background(), "sha256", 11)
		if err != nil {
			return tpm.Boot{}, err
		}
		signed, err := tpmtest.SignPCR11(key, now[11])
		return tpm.Boot{Signatures: signed}, err
	}
}

// TestPlainStateDoesNotHoldTheLatch: whoever replaces META and STATE by his own
// gets a node that runs, and no key of the volumes that are gone.
func TestPlainStateDoesNotHoldTheLatch(t *testing.T) {
	t.Parallel()
	s := newSealedRig(t)
	s.start(t)
	if err := s.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.apply(t, config(nil, nil), node.Auto)
	s.wantPhase(t, node.Running)
	if !s.latched(t) {
		t.Error("the latch is open on a node without keys")
	}
}

// TestNoLatchWithoutTPM: a machine whose TPM went away starts all the same, and
// its operator is told.
func TestNoLatchWithoutTPM(t *testing.T) {
	t.Parallel()
	s := installed(t, sealedConfig("", "recovery"))
	s.opts.Machine.TPM = tpm.NewDevice(func() (transport.TPMCloser, error) { return nil, fs.ErrNotExist })
	s.boots(t)
	s.wantSlot(t, 0, keys.WasBlocked, "TPM cannot be opened")
	if n := s.Status().Notices; len(n) != 1 || !strings.Contains(n[0], "latch did not close") {
		t.Errorf("notices %q", n)
	}
	if err := s.Latch(t.Context()); err != nil || s.Status().Latched {
		t.Errorf("Latch: %v", err)
	}
}
