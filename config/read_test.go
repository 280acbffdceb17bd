package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/secret"
)

var sameSecret = cmp.Comparer(func(a, b *secret.Bytes) bool { return a.Equal(b) })

func static(passphrase string) *config.Static {
	return &config.Static{Passphrase: secret.Copy([]byte(passphrase))}
}

// read reads one source named f.
func read(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Read(config.Source{Name: "f", Data: []byte(text)})
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	t.Cleanup(c.Wipe)
	return c
}

func at(line int) config.Position { return config.Position{File: "f", Line: line} }

func TestReadFixtures(t *testing.T) {
	const xts, luks2 = "aes-xts-plain64", "luks2"
	tests := []struct {
		file string
		want []config.Encryption
	}{
		{"valid-main.yaml", []config.Encryption{
			{
				Volume: "EPHEMERAL", Source: at(10), Path: "machine.systemDiskEncryption.ephemeral", Provider: luks2, Cipher: xts, KeySize: 512,
				Options: []string{"no_read_workqueue", "no_write_workqueue"},
				Keys: []config.Key{
					{Slot: 0, Source: at(16), NodeID: &config.NodeID{}},
					{Slot: 1, Source: at(13), KMS: &config.KMS{Endpoint: "grpc://172.20.0.1:4050"}},
				},
			},
			{
				Volume: "STATE", Source: at(20), Path: "machine.systemDiskEncryption.state", Provider: luks2, Cipher: "xchacha12,aes-adiantum-plain64", KeySize: 256, BlockSize: 4096,
				Keys: []config.Key{
					{Slot: 0, Source: at(22), TPM: &config.TPM{PCRs: []int{7}}},
					{Slot: 31, Source: at(24), Static: static("hunter2")},
				},
			},
		}},
		{"valid-documents.yaml", []config.Encryption{
			{
				Volume: "STATE", Source: at(11), Path: "encryption", Provider: luks2, Cipher: xts, KeySize: 512,
				Keys: []config.Key{
					{Slot: 2, Source: at(19), Static: static(`hunter2: with "signs"`)},
					{Slot: 3, Source: at(14), TPM: &config.TPM{CheckSecurebootStatusOnEnroll: true, PCRs: []int{0, 7}}},
				},
			},
			{
				Volume: "u-local-data", Source: at(27), Path: "encryption", Provider: luks2, Cipher: xts, KeySize: 256, AllowDiscards: true,
				Keys: []config.Key{
					{Slot: 0, Source: at(33), LockToState: true, KMS: &config.KMS{Endpoint: "https://kms.example.com/seal"}},
				},
			},
			{
				Volume: "r-ceph", Source: at(40), Path: "encryption", Provider: luks2, Cipher: xts, KeySize: 512,
				Keys: []config.Key{{Source: at(42), NodeID: &config.NodeID{}}},
			},
			{
				Volume: "s-swap1", Source: at(47), Path: "encryption", Provider: luks2, Cipher: xts, KeySize: 512,
				Keys: []config.Key{{Source: at(47), TPM: &config.TPM{}}},
			},
		}},
		{"valid-aliases.yaml", []config.Encryption{
			{
				Volume: "STATE", Source: at(3), Path: "machine.systemDiskEncryption.state", Provider: luks2, Cipher: xts, KeySize: 512,
				Keys: []config.Key{
					{Slot: 4, Source: at(5), Static: static("hunter2")},
					{Slot: 5, Source: at(6), Static: static("hunter2")},
				},
			},
			{
				Volume: "EPHEMERAL", Source: at(8), Path: "machine.systemDiskEncryption.ephemeral", Provider: luks2, Cipher: xts, KeySize: 512,
				Keys: []config.Key{
					{Slot: 4, Source: at(5), Static: static("hunter2")},
					{Slot: 5, Source: at(6), Static: static("hunter2")},
				},
			},
		}},
		{"valid-json.yaml", []config.Encryption{{
			Volume: "CRI", Source: at(2), Path: "encryption", Provider: luks2, Cipher: xts, KeySize: 512,
			Keys: []config.Key{{Source: at(2), KMS: &config.KMS{Endpoint: "grpcs://10.0.0.1"}}},
		}}},
		{"valid-empty.yaml", nil},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", "read", tt.file))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, read(t, string(text)).Volumes, sameSecret); d != "" {
				t.Errorf("volumes (-want +got):\n%s", d)
			}
		})
	}
}

// TestReadKeys has the forms of one key that are accepted.
func TestReadKeys(t *testing.T) {
	tests := []struct {
		name string
		key  string
		want config.Key
	}{
		{"passphrase like a number", "static: {passphrase: 0123}", config.Key{Static: static("0123")}},
		{"passphrase like a truth value", "static: {passphrase: yes}", config.Key{Static: static("yes")}},
		{"passphrase like a date", "static: {passphrase: 2020-01-01}", config.Key{Static: static("2020-01-01")}},
		{"passphrase with blanks", "static: {passphrase: ' a '}", config.Key{Static: static(" a ")}},
		{"passphrase of other letters", "static: {passphrase: pässwörd}", config.Key{Static: static("pässwörd")}},
		{"passphrase over lines", "static: {passphrase: \"a\\nb\\n\"}", config.Key{Static: static("a\nb\n")}},
		{"null kind is absent", "nodeID: {}\n      tpm: null", config.Key{NodeID: &config.NodeID{}}},
		{"null slot is 0", "nodeID: {}\n      slot:", config.Key{NodeID: &config.NodeID{}}},
		{"slot in hex", "nodeID: {}\n      slot: 0x1f", config.Key{Slot: 31, NodeID: &config.NodeID{}}},
		{"lockToState false", "nodeID: {}\n      lockToState: false", config.Key{NodeID: &config.NodeID{}}},
		{"lockToState as in YAML 1.1", "nodeID: {}\n      lockToState: yes", config.Key{LockToState: true, NodeID: &config.NodeID{}}},
		{"tpm without options", "tpm: {}", config.Key{TPM: &config.TPM{PCRs: []int{7}}}},
		{"tpm with null options", "tpm: {options: }", config.Key{TPM: &config.TPM{PCRs: []int{7}}}},
		{"tpm with empty options", "tpm: {options: {}}", config.Key{TPM: &config.TPM{}}},
		{"tpm with empty pcrs", "tpm: {options: {pcrs: []}}", config.Key{TPM: &config.TPM{}}},
		{"tpm with all that is ours", "tpm: {checkSecurebootStatusOnUnseal: true, format: cryptctl, pin: true, latch: false, reseal: true, allowWeakPolicy: true}", config.Key{TPM: &config.TPM{
			PCRs: []int{7}, CheckSecurebootStatusOnUnseal: true, Format: "cryptctl", PIN: true, NoLatch: true, Reseal: true, AllowWeakPolicy: true,
		}}},
		{"tpm with null fields", "tpm: {format: , latch: , signingKey: }", config.Key{TPM: &config.TPM{PCRs: []int{7}}}},
		{"tpm with a format without a latch", "tpm: {format: talos}", config.Key{TPM: &config.TPM{PCRs: []int{7}, Format: "talos", NoLatch: true}}},
		{"tpm with a signing key", "tpm:\n        signingKey: |\n" + indent(rsaKey, 10), config.Key{TPM: &config.TPM{PCRs: []int{7}, SigningKey: []byte(rsaKey)}}},
		{"tpm with pcrs unsorted", "tpm: {options: {pcrs: [15, 4, 15, 0]}}", config.Key{TPM: &config.TPM{PCRs: []int{0, 4, 15}}}},
		{"kms with all that is ours", "kms:\n        endpoint: https://k\n        endpoints: [https://l, 'grpc://m']\n        serverName: kms\n        tls12: true\n        authorities: |\n" +
			indent(certificate, 10) + "        certificate: |\n" + indent(certificate, 10) + "        key: |\n" + indent(itsKey, 10), config.Key{KMS: &config.KMS{
			Endpoint: "https://k", Endpoints: []string{"https://l", "grpc://m"}, ServerName: "kms", TLS12: true,
			Authorities: []byte(certificate), Certificate: []byte(certificate), Key: secret.Copy([]byte(itsKey)),
		}}},
		{"kms with null fields", "kms: {endpoint: 'https://k', endpoints: , authorities: , certificate: , key: , serverName: , tls12: }", config.Key{KMS: &config.KMS{Endpoint: "https://k"}}},
		{"kms by address", "kms: {endpoint: 'grpc://[fd00::1]:4050'}", config.Key{KMS: &config.KMS{Endpoint: "grpc://[fd00::1]:4050"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := read(t, head+"  provider: luks2\n  keys:\n    - "+tt.key+"\n")
			tt.want.Source = at(7)
			if d := cmp.Diff([]config.Key{tt.want}, c.Volumes[0].Keys, sameSecret); d != "" {
				t.Errorf("keys (-want +got):\n%s", d)
			}
			if want, _, _ := strings.Cut(tt.key, ":"); c.Volumes[0].Keys[0].Kind() != want {
				t.Errorf("kind %q, want %q", c.Volumes[0].Keys[0].Kind(), want)
			}
		})
	}
}

func TestReadBlock(t *testing.T) {
	const keys = "\n  keys: [{nodeID: {}}]\n"
	tests := []struct {
		name, block string
		cipher      string
		keySize     int
		blockSize   int
		options     []string
	}{
		{"defaults", "", "aes-xts-plain64", 512, 0, nil},
		{"zeros are defaults", "\n  keySize: 0\n  blockSize: 0\n  cipher: ''", "aes-xts-plain64", 512, 0, nil},
		{"xts 256", "\n  keySize: 256\n  blockSize: 512", "aes-xts-plain64", 256, 512, nil},
		{"adiantum", "\n  cipher: xchacha20,aes-adiantum-plain64\n  blockSize: 1024", "xchacha20,aes-adiantum-plain64", 256, 1024, nil},
		{"adiantum 256", "\n  cipher: xchacha12,aes-adiantum-plain64\n  keySize: 256", "xchacha12,aes-adiantum-plain64", 256, 0, nil},
		{"options", "\n  blockSize: 2048\n  options: [same_cpu_crypt, no_read_workqueue, same_cpu_crypt]", "aes-xts-plain64", 512, 2048, []string{"same_cpu_crypt", "no_read_workqueue"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := read(t, head+"  provider: luks2"+tt.block+keys).Volumes[0]
			got.Keys = nil
			want := config.Encryption{
				Volume: "EPHEMERAL", Source: at(4), Path: "encryption", Provider: "luks2",
				Cipher: tt.cipher, KeySize: tt.keySize, BlockSize: tt.blockSize, Options: tt.options,
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("block (-want +got):\n%s", d)
			}
		})
	}
}

// TestReadWithoutEncryption has sources that are fine and encrypt nothing.
func TestReadWithoutEncryption(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                   "",
		"a comment":                 "# nothing\n",
		"null documents":            "---\n---\nnull\n",
		"main document":             "version: v1alpha1\nmachine: {type: worker}\ncluster: {}\n",
		"null machine":              "machine:\n",
		"null systemDiskEncryption": "machine: {systemDiskEncryption: }\n",
		"null state":                "machine: {systemDiskEncryption: {state: }}\n",
		"volume without encryption": "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {grow: true}\n",
		"null encryption":           head,
		"empty encryption":          strings.TrimSuffix(head, "\n") + " {}\n",
		"provider none":             head + "  provider: none\n",
		"provider none, no keys":    head + "  provider: None\n  keys: []\n  cipher: aes-xts-plain64\n",
		"unknown kind":              "apiVersion: v7\nkind: Surprise\nencryption: {keys: what}\nname: 1\n",
		"no volume of ours":         "apiVersion: v1alpha1\nkind: ExistingVolumeConfig\nname: x\nencryption: 3\n",
		"list of other things":      "machine:\n  network: {interfaces: [{interface: eth0}]}\n  files: [{content: '{\"a\": 1}'}]\n  1: 2\n",
	} {
		t.Run(name, func(t *testing.T) {
			if c := read(t, text); len(c.Volumes) != 0 {
				t.Errorf("volumes %v", c.Volumes)
			}
		})
	}
	if c, err := config.Read(); err != nil || len(c.Volumes) != 0 {
		t.Errorf("no sources give %v, %v", c, err)
	}
}

// TestReadNoneLeavesItToMain: as in Talos, a document that says none does not
// overrule the main document.
func TestReadNoneLeavesItToMain(t *testing.T) {
	const main = "machine: {systemDiskEncryption: {ephemeral: {keys: [{nodeID: {}}]}}}\n"
	for _, text := range []string{main + "---\n" + head + "  provider: none\n", head + "  provider: none\n---\n" + main} {
		if c := read(t, text); len(c.Volumes) != 1 || c.Volumes[0].Volume != "EPHEMERAL" {
			t.Errorf("volumes %v of\n%s", c.Volumes, text)
		}
	}
}

func TestVolume(t *testing.T) {
	c := read(t, "machine: {systemDiskEncryption: {state: {keys: [{nodeID: {}}]}, ephemeral: {keys: [{slot: 2, tpm: {}}]}}}\n")
	e, err := c.Volume("EPHEMERAL")
	if err != nil || e.Volume != "EPHEMERAL" || e.Keys[0].Slot != 2 {
		t.Errorf("Volume gives %v, %v", e, err)
	}
	tests := []struct {
		name   string
		config *config.Config
		volume string
		want   string
	}{
		{"another", c, "u-data", "no encryption for volume u-data: the configuration encrypts STATE, EPHEMERAL; check the name, or add a volume document with an encryption block"},
		{"misspelt", c, "Ephemral", "no encryption for volume Ephemral: the configuration encrypts STATE, EPHEMERAL; did you mean EPHEMERAL?"},
		{"none there", &config.Config{}, "STATE", "no encryption for volume STATE: the configuration encrypts no volume; add a volume document with an encryption block, or read the right file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := tt.config.Volume(tt.volume); err == nil || err.Error() != tt.want {
				t.Errorf("error %v\nwant  %s", err, tt.want)
			}
		})
	}
}

func TestWipe(t *testing.T) {
	c := read(t, "machine: {systemDiskEncryption: {state: {keys: [{static: {passphrase: hunter2}}]}}}\n")
	p := c.Volumes[0].Keys[0].Static.Passphrase
	if string(p.Bytes()) != "hunter2" {
		t.Fatal("another passphrase")
	}
	c.Wipe()
	c.Wipe()
	if p.Len() != 0 || c.Volumes[0].Volume != "STATE" {
		t.Error("Wipe left the passphrase, or took more")
	}
}

// lockedMemory returns the VmLck line of /proc/self/status.
func lockedMemory(t *testing.T) string {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmLck:") {
			return line
		}
	}
	t.Skip("no VmLck in /proc/self/status")
	return ""
}

// TestMistakesWipe: a Read that fails leaves no passphrase behind, wherever the
// mistake is. The kernel's count of locked memory is the judge.
func TestMistakesWipe(t *testing.T) {
	const secrets = "  provider: luks2\n  keys: [{static: {passphrase: hunter2}}]\n"
	before := lockedMemory(t)
	c := read(t, head+secrets)
	if lockedMemory(t) == before {
		t.Skip("this process may not lock memory (RLIMIT_MEMLOCK)")
	}
	c.Wipe()
	if got := lockedMemory(t); got != before {
		t.Errorf("after Wipe %s, before %s", got, before)
	}
	for name, text := range map[string]string{
		"in another document": head + secrets + "---\n- 1\n",
		"in the block":        head + secrets + "  keySize: 1\n",
		"in the name":         userVolume("a_b") + "---\n" + strings.Replace(head, "EPHEMERAL", "X", 1) + secrets,
		"none with keys":      head + strings.Replace(secrets, "luks2", "none", 1),
		"volume twice":        head + secrets + "---\n" + head + secrets,
		"slot twice":          head + secrets + "  options: []\n" + "---\n" + keys + strings.Repeat("    - static: {passphrase: hunter2}\n", 40),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := config.Read(config.Source{Name: "f", Data: []byte(text)}); err == nil {
				t.Fatal("no error")
			}
			if got := lockedMemory(t); got != before {
				t.Errorf("after Read %s, before %s", got, before)
			}
		})
	}
}

func TestReadFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one := write("one.yaml", head+"  provider: luks2\n  keys: [{nodeID: {}}]\n", 0o600)
	two := write("two.yaml", "machine: {systemDiskEncryption: {state: {keys: [{slot: 7, nodeID: {}}]}}}\n", 0o600)
	bad := write("bad.yaml", "machine: {systemDiskEncryption: {state: {keys: []}}}\n", 0o600)
	large := write("large.yaml", strings.Repeat("#\n", 5<<20)+"#", 0o600)

	c, err := config.ReadFiles(one, two)
	if err != nil || len(c.Volumes) != 2 || c.Volumes[0].Source.File != one || c.Volumes[1].Source.String() != two+":1" {
		t.Fatalf("two files give %v, %v", c, err)
	}

	_, err = config.ReadFiles(one, dir, large, filepath.Join(dir, "no"), filepath.Join(one, "no"), bad, one)
	want := strings.Join([]string{
		dir + ": is a directory; name the files in it",
		large + ": is larger than 10240 KiB; check that this is the right file",
		filepath.Join(dir, "no") + ": no such file; check the path",
		filepath.Join(one, "no") + ": cannot be read: not a directory; check the path and the device it is on",
		bad + ":1: machine.systemDiskEncryption.state.keys: there are no keys; add a key, such as - slot: 0 with nodeID: {}",
		one + ":4: encryption: volume EPHEMERAL is also configured at " + one + ":4; keep one of the two",
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
	var first *config.Error
	if !errors.As(err, &first) || first.File != dir {
		t.Errorf("errors.As finds %v", first)
	}

	if os.Geteuid() != 0 {
		_, err = config.ReadFiles(write("closed.yaml", "", 0))
		if err == nil || !strings.Contains(err.Error(), "closed.yaml: may not be read by this user; run as") {
			t.Errorf("closed file gives %v", err)
		}
	}
}

func TestReadStdin(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stdin
	os.Stdin = r
	t.Cleanup(func() { os.Stdin = old; r.Close() })
	w.WriteString(head + "  provider: luks2\n  keys: [{nodeID: {}}]\n")
	w.Close()
	c, err := config.ReadFiles("-")
	if err != nil || len(c.Volumes) != 1 || c.Volumes[0].Source.String() != "stdin:4" {
		t.Errorf("stdin gives %v, %v", c, err)
	}
}
