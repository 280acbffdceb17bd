package config_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/cryptctl/cryptctl/config"
)

// TestReadsWhatWasMeant draws an encryption, writes it as YAML in an order of
// its own and reads it back.
func TestReadsWhatWasMeant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawEncryption(t)
		text := volumeYAML(t, want)
		c, err := config.Read(config.Source{Name: "f", Data: []byte(text)})
		if err != nil {
			t.Fatalf("%v of\n%s", err, text)
		}
		defer c.Wipe()
		ignore := cmpopts.IgnoreTypes(config.Position{})
		if d := cmp.Diff([]config.Encryption{want}, c.Volumes, sameSecret, ignore, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("volumes (-want +got):\n%s\nof\n%s", d, text)
		}
	})
}

func drawEncryption(t *rapid.T) config.Encryption {
	e := config.Encryption{
		Volume:        "u-" + rapid.StringMatching(`[A-Za-z0-9-]{1,34}`).Draw(t, "name"),
		Path:          "encryption",
		Provider:      "luks2",
		Cipher:        "aes-xts-plain64",
		KeySize:       rapid.SampledFrom([]int{256, 512}).Draw(t, "keySize"),
		BlockSize:     rapid.SampledFrom([]int{0, 512, 1024, 2048, 4096}).Draw(t, "blockSize"),
		AllowDiscards: rapid.Bool().Draw(t, "allowDiscards"),
	}
	if e.KeySize == 256 && rapid.Bool().Draw(t, "adiantum") {
		e.Cipher = "xchacha20,aes-adiantum-plain64"
	}
	for slot := range 32 {
		if rapid.IntRange(0, 7).Draw(t, "used") > 0 && (slot < 31 || len(e.Keys) > 0) {
			continue
		}
		k := config.Key{Slot: slot, LockToState: rapid.Bool().Draw(t, "lock")}
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			k.Static = static(rapid.StringN(1, 40, 80).Draw(t, "passphrase"))
		case 1:
			k.NodeID = &config.NodeID{}
		case 2:
			k.KMS = &config.KMS{Endpoint: "grpc://k" + strconv.Itoa(slot) + ":4050"}
		case 3:
			k.TPM = &config.TPM{CheckSecurebootStatusOnEnroll: rapid.Bool().Draw(t, "check")}
			for n := range 11 {
				if rapid.Bool().Draw(t, "pcr") {
					k.TPM.PCRs = append(k.TPM.PCRs, n)
				}
			}
		}
		e.Keys = append(e.Keys, k)
	}
	return e
}

func volumeYAML(t *rapid.T, e config.Encryption) string {
	lines := []string{
		"  provider: luks2", "  cipher: " + e.Cipher, fmt.Sprintf("  keySize: %d", e.KeySize),
		fmt.Sprintf("  blockSize: %d", e.BlockSize), fmt.Sprintf("  allowDiscards: %v", e.AllowDiscards),
	}
	keys := "  keys:"
	for _, k := range rapid.Permutation(e.Keys).Draw(t, "order of keys") {
		fields := []string{fmt.Sprintf("slot: %d", k.Slot), fmt.Sprintf("lockToState: %v", k.LockToState), kindYAML(k)}
		keys += "\n    - {" + strings.Join(rapid.Permutation(fields).Draw(t, "order of a key"), ", ") + "}"
	}
	lines = rapid.Permutation(append(lines, keys)).Draw(t, "order")
	return "encryption:\n" + strings.Join(lines, "\n") + "\nname: '" + strings.TrimPrefix(e.Volume, "u-") + "'\nkind: UserVolumeConfig\napiVersion: v1alpha1\n"
}

func kindYAML(k config.Key) string {
	switch k.Kind() {
	case "static":
		var b strings.Builder
		for _, r := range string(k.Static.Passphrase.Bytes()) {
			fmt.Fprintf(&b, `\U%08X`, r)
		}
		return `static: {passphrase: "` + b.String() + `"}`
	case "kms":
		return "kms: {endpoint: '" + k.KMS.Endpoint + "'}"
	case "tpm":
		return fmt.Sprintf("tpm: {checkSecurebootStatusOnEnroll: %v, options: {pcrs: %s}}",
			k.TPM.CheckSecurebootStatusOnEnroll, strings.ReplaceAll(fmt.Sprint(k.TPM.PCRs), " ", ", "))
	}
	return "nodeID: {}"
}
