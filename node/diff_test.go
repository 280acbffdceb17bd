package node_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/node"
)

// encrypted is a document with fields beside the keys that encryption gives.
func encrypted(kind, name, fields string, keys ...string) string {
	text := strings.Replace(encryption(keys), "  provider: luks2\n", "  provider: luks2\n"+fields, 1)
	return fmt.Sprintf("---\napiVersion: v1alpha1\nkind: %s\nname: %s\n%s", kind, name, text)
}

// TestDifferences: each change is listed by its field, with when it takes effect,
// and without what is secret; what is in the way of a mode is in its error.
func TestDifferences(t *testing.T) {
	t.Parallel()
	const main = "version: v1alpha1\nmachine:\n  type: worker\n"
	state := encrypted("VolumeConfig", "STATE", "", "hunter2 s")
	ephemeral := func(fields string, keys ...string) string {
		return main + state + encrypted("VolumeConfig", "EPHEMERAL", fields, keys...)
	}
	block := "  systemDiskEncryption:\n    ephemeral:\n      provider: luks2\n      cipher: xchacha12,aes-adiantum-plain64\n      keys:\n      - {slot: 0, static: {passphrase: hunter2 e}}\n"
	tests := []struct {
		name, config string
		want         []string
		noReboot     string // what its error says to do; "" when nothing is in the way
	}{
		{"nothing", ephemeral("", "hunter2 e"), nil, ""},
		{"keys", ephemeral("", "hunter2 E", "hunter2 F"), []string{"EPHEMERAL, encryption.keys[slot=0], encryption.keys[slot=1]: keys (now)"}, ""},
		{"one key", ephemeral("", "hunter2 e", "hunter2 F"), []string{"EPHEMERAL, encryption.keys[slot=1]: keys (now)"}, ""},
		{
			"cipher, and its key size with it", ephemeral("  cipher: xchacha12,aes-adiantum-plain64\n", "hunter2 e"),
			[]string{"EPHEMERAL, encryption.cipher: cipher xchacha12,aes-adiantum-plain64 (wipe)"},
			"reset",
		},
		{
			"all at once", ephemeral("  cipher: aes-xts-plain64\n  keySize: 256\n  blockSize: 1024\n  options: [same_cpu_crypt]\n  allowDiscards: true\n", "hunter2 E"),
			[]string{
				"EPHEMERAL, encryption.keySize: another key size: 256 bits (wipe)",
				"EPHEMERAL, encryption.blockSize: another sector size: 1024 bytes (wipe)",
				"EPHEMERAL, encryption.options, encryption.allowDiscards: options of the mapping (next boot)",
				"EPHEMERAL, encryption.keys[slot=0]: keys (now)",
			},
			"reset",
		},
		{"options", ephemeral("  allowDiscards: true\n", "hunter2 e"), []string{"EPHEMERAL, encryption.allowDiscards: options of the mapping (next boot)"}, "mode auto"},
		{"in the other dialect", main + block + state, []string{"EPHEMERAL, machine.systemDiskEncryption.ephemeral.cipher: cipher xchacha12,aes-adiantum-plain64 (wipe)"}, "reset"},
		{"plain", main + state, []string{"EPHEMERAL, encryption: to be plain (wipe)"}, "reset"},
		{"a volume more", ephemeral("", "hunter2 e") + encrypted("UserVolumeConfig", "more", "", "hunter2 m"), []string{"u-more, encryption: a new volume (now)"}, ""},
	}
	r := running(t, ephemeral("", "hunter2 e"))
	for _, test := range tests {
		staged := lines(r.apply(t, test.config, node.Staged)) // never in force here
		if d := cmp.Diff(strings.ReplaceAll(strings.Join(test.want, "\n"), "(now)", "(next boot)"), strings.Join(staged, "\n")); d != "" {
			t.Errorf("%s, staged (-want +got):\n%s", test.name, d)
		}
		if test.noReboot == "" {
			continue
		}
		refused, err := r.Apply(t.Context(), []byte(test.config), node.NoReboot)
		if !errors.Is(err, node.ErrNeedsMore) || !strings.Contains(err.Error(), test.noReboot) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s, without a reboot: %v", test.name, err)
			continue
		}
		got := lines(refused)
		if d := cmp.Diff(test.want, got); d != "" {
			t.Errorf("%s, without a reboot (-want +got):\n%s", test.name, d)
		}
		for _, line := range got {
			if in := strings.Contains(err.Error(), line); in != !strings.HasSuffix(line, "(now)") {
				t.Errorf("%s: the error names %q: %v\n%v", test.name, line, in, err)
			}
		}
	}
}

// lines are the changes that are listed.
func lines(a *node.Applied) (all []string) {
	for _, d := range a.Changes {
		all = append(all, d.String())
	}
	return all
}
