package tpm_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// TestVolume: a volume with a TPM slot, of each format, opens with the TPM alone;
// after PCR 7 changed it opens with the other key, and the slot can be sealed
// anew by the same reconciler.
func TestVolume(t *testing.T) {
	t.Parallel()
	for _, format := range []tpm.Format{tpm.Own, tpm.Talos, tpm.Systemd} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			m := booted(t)
			provider := newProvider(t, m.Open, tpm.Options{
				Format: format, Policy: tpm.Policy{PCRs: []int{7}, Signed: true}, Boot: bootOf(signers()[0].sign(t, m.Open)),
			})
			sealed := keys.Key{Slot: 1, Kind: "tpm", Provider: provider, Tokens: tpm.Tokens(), Random: true}
			other := keys.Key{Slot: 0, Kind: "static", Provider: keys.Static{Passphrase: secret.Copy([]byte("recovery"))}}
			dev := formatted(t, []keys.Key{other, sealed})

			openedBy(t, dev, sealed, true)
			tpmtest.Extend(t, m, 7, "other keys")
			openedBy(t, dev, sealed, false)
			both := []keys.Key{other, sealed}
			reconcile(t, dev, both, keys.Policy{}, map[int]string{0: "kept", 1: "blocked"})
			openedBy(t, dev, sealed, false)
			reconcile(t, dev, both, keys.Policy{Reseal: true}, map[int]string{0: "kept", 1: "replaced"})
			openedBy(t, dev, sealed, true)
			if loaded := tpmtest.Handles(t, m); len(loaded) != 0 {
				t.Errorf("loaded are still %x", loaded)
			}
		})
	}
}

func options() keys.Options { return keys.Options{Cost: kdf.Light()} }

func formatted(t *testing.T, want []keys.Key) *luks.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 20<<20); err != nil {
		t.Fatal(err)
	}
	dev, err := luks.OpenFile(path, luks.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	key := luks.NewVolumeKey(luks.DefaultVolumeKeySize)
	defer key.Wipe()
	if _, err := keys.Format(t.Context(), dev, "STATE", want, key, luks.FormatOptions{}, options()); err != nil {
		t.Fatal(err)
	}
	return dev
}

func session(t *testing.T, dev *luks.File, want []keys.Key, opts keys.Options) (*keys.Session, error) {
	t.Helper()
	header, err := luks.Read(dev)
	if err != nil {
		t.Fatal(err)
	}
	return keys.Open(t.Context(), header, "STATE", want, opts)
}

func openedBy(t *testing.T, dev *luks.File, key keys.Key, want bool) {
	t.Helper()
	s, err := session(t, dev, []keys.Key{key}, options())
	if err == nil {
		s.Close()
	}
	if (err == nil) != want {
		t.Fatalf("the TPM alone opens the volume: %v, must be %v", err, want)
	}
}

// reconcile compares what became of the slots.
func reconcile(t *testing.T, dev *luks.File, want []keys.Key, policy keys.Policy, outcomes map[int]string) {
	t.Helper()
	opts := options()
	opts.Policy = policy
	s, err := session(t, dev, want, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	report, err := s.Apply(t.Context())
	if err != nil && report == nil {
		t.Fatal(err)
	}
	for _, r := range report.Slots {
		if string(r.Outcome) != outcomes[r.Slot] {
			t.Errorf("slot %d: %s (%s), must be %q", r.Slot, r.Outcome, r.Reason, outcomes[r.Slot])
		}
	}
}
