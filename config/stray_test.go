package config_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/config"
)

// TestStray: encryption that a slip put where nobody reads it is refused, once,
// with the place to which it belongs.
func TestStray(t *testing.T) {
	t.Parallel()
	const (
		block  = "{provider: luks2, keys: [{slot: 0, nodeID: {}}]}"
		system = "systemDiskEncryption: {state: {keys: [{slot: 0, nodeID: {}}]}}"
		plain  = ": is not read here, and would leave the volume unencrypted; "
		volume = "apiVersion: v1alpha1\nkind: VolumeConfig\nname: STATE\n"
		inMain = "move it into machine.systemDiskEncryption, or into a VolumeConfig document"
		below  = "move it into encryption, indented below it"
		atTop  = "move it to the top of the document, as encryption"
		kinds  = "write a kind that has encryption: VolumeConfig, UserVolumeConfig, RawVolumeConfig, SwapVolumeConfig"
	)
	for _, tt := range []struct{ text, want string }{
		{"machines: {" + system + "}\n", "f:1: machines: unknown field; did you mean machine?"},
		{"MACHINE: {" + system + "}\n", "f:1: MACHINE: unknown field; did you mean machine?"},
		{"machine: {}\n" + system + "\n", "f:2: systemDiskEncryption" + plain + "move it into machine"},
		{"machine: {}\ncluster: {" + system + "}\n", "f:2: cluster.systemDiskEncryption" + plain + "move it into machine"},
		{"machine:\n  install: {" + system + "}\n", "f:2: machine.install.systemDiskEncryption" + plain + "move it into machine"},
		{"machine: {}\ncluster: {a: [1, {" + system + "}]}\n", "f:2: cluster.a[1].systemDiskEncryption" + plain + "move it into machine"},
		{"name: STATE\nencryption: " + block + "\n", "f:2: encryption" + plain + inMain},
		{"machine:\n  encryption: " + block + "\n", "f:2: machine.encryption" + plain + inMain},
		{"machine:\n  state: " + block + "\n", "f:2: machine.state" + plain + "move it into machine.systemDiskEncryption"},
		{"apiVersion: v1alpha1\nkind: VolumConfig\nname: STATE\n", "f:2: kind: unknown kind VolumConfig; did you mean VolumeConfig?"},
		{"apiVersion: v1alpha1\nkind: volumeconfig\nname: STATE\n", "f:2: kind: unknown kind volumeconfig; did you mean VolumeConfig?"},
		{"apiVersion: v1alpha1\nkind: UserVolumesConfig\nname: a\n", "f:2: kind: unknown kind UserVolumesConfig; did you mean UserVolumeConfig?"},
		{"apiVersion: v1alpha1\nkind: TrustedRootConfig\nname: a\n", "f:2: kind: unknown kind TrustedRootConfig; did you mean TrustedRootsConfig?"},
		{"apiVersion: v1alpha1\nkind: CryptConfig\nname: STATE\nencryption: " + block + "\n", "f:4: encryption" + plain + kinds},
		{"apiVersion: v1alpha1\nkind: CryptConfig\nname: STATE\nkeys: [{static: {passphrase: hunter2}}]\n", "f:4: keys" + plain + kinds},
		{volume + "provider: luks2\nkeys: [{slot: 0, nodeID: {}}]\n", "f:4: provider" + plain + below + "\nf:5: keys" + plain + below},
		{volume + "encryption:\nkeys: [{slot: 0, nodeID: {}}]\n", "f:5: keys" + plain + below},
		{volume + "encryption:\nprovider: LUKS-2\n", "f:5: provider" + plain + below},
		{volume + "provisioning:\n  encryption: " + block + "\n", "f:5: provisioning.encryption" + plain + atTop},
		{volume + "encrption: " + block + "\n", "f:4: encrption: unknown field; did you mean encryption?"},
	} {
		_, err := config.Read(config.Source{Name: "f", Data: []byte(tt.text)})
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s\nerror\n%v\nwant\n%s", tt.text, err, tt.want)
		}
	}
}

// TestNotStray: what only resembles encryption, or is written down for a place
// where it is read, is carried along.
func TestNotStray(t *testing.T) {
	t.Parallel()
	const volume = "apiVersion: v1alpha1\nkind: VolumeConfig\nname: STATE\n"
	for _, text := range []string{
		"x-common: &e {provider: luks2, keys: [{slot: 0, nodeID: {}}]}\nmachine: {systemDiskEncryption: {state: *e, ephemeral: *e}}\n",
		"x-common: {deep: &s {systemDiskEncryption: {state: {keys: [{slot: 0, nodeID: {}}]}}}}\nmachine: {}\n",
		"machine: {network: {encryption: yes, keys: [{name: a}]}, systemDiskEncryption: {}}\nsystemDiskEncryption: {}\n",
		"machine: {}\ncluster: {apiServer: {resources: [{providers: [{secretbox: {keys: [{name: a, secret: b}]}}]}]}}\n",
		"machine: {kubelet: {extraConfig: {keys: [{slot: 1}, {static: a}, {kms: 1}]}}}\n",
		"apiVersion: v1alpha1\nkind: RegistryAuthConfig\nname: r\nkeys: [a, {name: b}]\nencryption: {keys: [a]}\n",
		volume + "provider: none\n",
		volume + "keys:\nprovider:\nencryption: {}\n",
	} {
		if _, err := config.Read(config.Source{Name: "f", Data: []byte(text)}); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
}

// TestKindsOfTalos: no kind that Talos has is taken for a slip.
func TestKindsOfTalos(t *testing.T) {
	t.Parallel()
	types, err := os.ReadFile("patch/talos.txt")
	if err != nil {
		t.Fatal(err)
	}
	kinds := 0
	for line := range strings.Lines(string(types)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "document" || words[1] == "v1alpha1" {
			continue
		}
		kinds++
		_, err := config.Read(config.Source{Name: "f", Data: []byte("apiVersion: v1alpha1\nname: STATE\nkind: " + words[1] + "\n")})
		var all config.Errors
		errors.As(err, &all)
		for _, e := range all {
			if e.Field == "kind" {
				t.Errorf("%s: %v", words[1], e)
			}
		}
	}
	if kinds < 40 {
		t.Errorf("%d kinds", kinds)
	}
}
