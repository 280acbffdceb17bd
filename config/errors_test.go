package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/config"
)

// head is the start of a document; its encryption block starts on line 5.
const head = "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nencryption:\n"

// keys starts the list of keys; the first is on line 7.
const keys = head + "  provider: luks2\n  keys:\n"

// key is one good key for blocks whose mistake is elsewhere.
const key = "  keys: [{nodeID: {}}]\n"

// state and block are the main document up to a block and up to its first key,
// on lines 4 and 5.
const (
	state  = "machine:\n  systemDiskEncryption:\n    state:\n"
	stated = state + "      keys:\n"
)

type mistake struct {
	name string
	text string
	want string // all lines of the error
}

// TestMistakes has one row per mistake; the text of the error is what the user
// reads, so it is compared as a whole.
func TestMistakes(t *testing.T) {
	for _, rows := range [][]mistake{blockMistakes, keyMistakes, kindMistakes, documentMistakes, mainMistakes, typeMistakes, yamlMistakes} {
		for _, tt := range rows {
			t.Run(tt.name, func(t *testing.T) {
				c, err := config.Read(config.Source{Name: "f", Data: []byte(tt.text)})
				if c != nil || err == nil {
					t.Fatalf("Read gives %v, %v", c, err)
				}
				if d := cmp.Diff(strings.Split(tt.want, "\n"), strings.Split(err.Error(), "\n")); d != "" {
					t.Errorf("error (-want +got):\n%s", d)
				}
				checkErrors(t, err)
			})
		}
	}
}

// checkErrors asserts what holds of every error: each mistake has all its
// parts, and no passphrase of the tests shows.
func checkErrors(t *testing.T, err error) {
	t.Helper()
	var all config.Errors
	if !errors.As(err, &all) || len(all) == 0 {
		t.Fatalf("error is a %T", err)
	}
	for _, e := range all {
		if e.File == "" || e.Problem == "" || e.Fix == "" {
			t.Errorf("incomplete: %#v", e)
		}
		if strings.Contains(e.Error(), "\n") {
			t.Errorf("more than a line: %q", e.Error())
		}
	}
	for _, shown := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, all[0])} {
		if strings.Contains(strings.ToLower(shown), "hunter") {
			t.Errorf("shows a passphrase: %s", shown)
		}
	}
}

var blockMistakes = []mistake{
	{"unknown field", head + "  provider: luks2\n  ciper: x\n" + key, "f:6: encryption.ciper: unknown field; did you mean cipher?"},
	{"unknown field far off", head + "  provider: luks2\n  colour: x\n" + key, "f:6: encryption.colour: unknown field; the fields here are provider, keys, cipher, keySize, blockSize, options, allowDiscards"},
	{"unknown field in other case", head + "  provider: luks2\n  keysize: 512\n" + key, "f:6: encryption.keysize: unknown field; did you mean keySize?"},
	{"unknown field with signs", head + "  provider: luks2\n  \"a\\nb\": x\n" + key, `f:6: encryption."a\nb": unknown field; the fields here are provider, keys, cipher, keySize, blockSize, options, allowDiscards`},
	{"provider missing", head + key, "f:4: encryption.provider: is missing; write provider: luks2"},
	{"provider missing, no keys", head + "  cipher: aes-xts-plain64\n", "f:4: encryption.provider: is missing; write provider: luks2\nf:4: encryption.keys: there are no keys; add a key, such as - slot: 0 with nodeID: {}"},
	{"provider none with keys", head + "  provider: none\n" + key, "f:5: encryption.provider: is none, but there are keys; write provider: luks2, or remove the keys"},
	{"provider unknown", head + "  provider: luks\n" + key, "f:5: encryption.provider: unknown provider luks; write luks2 or none"},
	{"provider empty", head + "  provider: ''\n" + key, `f:5: encryption.provider: unknown provider ""; write luks2 or none`},
	{"keys missing", head + "  provider: luks2\n", "f:4: encryption.keys: there are no keys; add a key, such as - slot: 0 with nodeID: {}"},
	{"keys empty", head + "  provider: luks2\n  keys: []\n", "f:6: encryption.keys: there are no keys; add a key, such as - slot: 0 with nodeID: {}"},
	{"keys null", head + "  provider: luks2\n  keys:\n", "f:6: encryption.keys: there are no keys; add a key, such as - slot: 0 with nodeID: {}"},
	{"cipher unknown", head + "  provider: luks2\n  cipher: aes-cbc\n  keySize: 7\n" + key, "f:6: encryption.cipher: unknown cipher aes-cbc; write one of aes-xts-plain64 or xchacha12,aes-adiantum-plain64 or xchacha20,aes-adiantum-plain64"},
	{"key size of xts", head + "  provider: luks2\n  keySize: 128\n" + key, "f:6: encryption.keySize: 128 bits do not fit aes-xts-plain64; write 512 or 256, or leave it out"},
	{"key size of adiantum", head + "  provider: luks2\n  cipher: xchacha20,aes-adiantum-plain64\n  keySize: 512\n" + key, "f:7: encryption.keySize: 512 bits do not fit xchacha20,aes-adiantum-plain64; write 256, or leave it out"},
	{"key size negative", head + "  provider: luks2\n  keySize: -256\n" + key, "f:6: encryption.keySize: -256 bits do not fit aes-xts-plain64; write 512 or 256, or leave it out"},
	{"block size", head + "  provider: luks2\n  blockSize: 8192\n" + key, "f:6: encryption.blockSize: 8192 is not a sector size; write 512, 1024, 2048 or 4096 bytes, or leave it out"},
	{"option misspelt", head + "  provider: luks2\n  options: [no_read_workque]\n" + key, "f:6: encryption.options[0]: unknown option no_read_workque; did you mean no_read_workqueue?"},
	{"option unknown", head + "  provider: luks2\n  options:\n    - same_cpu_crypt\n    - submit_from_crypt_cpus\n" + key, "f:8: encryption.options[1]: unknown option submit_from_crypt_cpus; the options are no_read_workqueue, no_write_workqueue, same_cpu_crypt"},
	{"too many keys", keys + manyKeys(33), "f:39: encryption.keys: has 33 entries; keep at most 32: LUKS2 has no more slots"},
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "    - {slot: %d, nodeID: {}}\n", i)
	}
	return b.String()
}

var keyMistakes = []mistake{
	{"unknown field in a key", keys + "    - nodeID: {}\n      slto: 1\n", "f:8: encryption.keys[0].slto: unknown field; did you mean slot?"},
	{"passphrase beside static", keys + "    - passphrase: hunter2\n", "f:7: encryption.keys[0].passphrase: unknown field; the fields here are slot, static, nodeID, kms, tpm, lockToState\nf:7: encryption.keys[0]: the key has no kind; add one of static, nodeID, kms, tpm"},
	{"slot twice", keys + "    - {slot: 3, nodeID: {}}\n    - tpm: {}\n      slot: 3\n", "f:9: encryption.keys[1].slot: slot 3 is also used by encryption.keys[0] on line 7; give each key a slot of its own, 0 to 31"},
	{"slot twice, left out", keys + "    - {slot: 0, nodeID: {}}\n    - {slot: 1, nodeID: {}}\n    - tpm: {}\n", "f:9: encryption.keys[2].slot: slot 0 is also used by encryption.keys[0] on line 7; give each key a slot of its own, 0 to 31"},
	{"slot above 31", keys + "    - nodeID: {}\n      slot: 32\n", "f:8: encryption.keys[0].slot: 32 is not a slot; write a number from 0 to 31"},
	{"slot negative", keys + "    - {slot: -1, nodeID: {}}\n", "f:7: encryption.keys[0].slot: -1 is not a slot; write a number from 0 to 31"},
	{"slot huge", keys + "    - {slot: 99999999999999999999, nodeID: {}}\n", "f:7: encryption.keys[0].slot: is a decimal or too large number, not a whole number; write a number without quotes"},
	{"slot beyond int", keys + "    - {slot: 18446744073709551615, nodeID: {}}\n", "f:7: encryption.keys[0].slot: is not a number that fits into 64 bits; write a smaller number"},
	{"no kind", keys + "    - slot: 4\n", "f:7: encryption.keys[0]: the key has no kind; add one of static, nodeID, kms, tpm"},
	{"kind without a value", keys + "    - slot: 4\n      nodeID:\n", "f:7: encryption.keys[0]: the key has no kind, since nodeID is empty; write nodeID: {} or the fields that belong below it"},
	{"two kinds", keys + "    - slot: 4\n      tpm: {}\n      static: {passphrase: hunter2}\n", "f:7: encryption.keys[0]: the key has static and tpm; keep one, or make each a key with a slot of its own"},
	{"all kinds", keys + "    - {static: {passphrase: a}, nodeID: {}, kms: {endpoint: 'https://k'}, tpm: {}}\n", "f:7: encryption.keys[0]: the key has static and nodeID and kms and tpm; keep one, or make each a key with a slot of its own"},
	{"key empty", keys + "    -\n", "f:7: encryption.keys[0]: is empty, not a mapping; write it as field: value"},
	{"lockToState on STATE", strings.Replace(keys, "EPHEMERAL", "STATE", 1) + "    - tpm: {}\n      lockToState: true\n", "f:8: encryption.keys[0].lockToState: STATE holds the salt that this would need to open it; remove lockToState from the keys of STATE"},
}

const (
	endpoint = "    - kms:\n        endpoint: " // the endpoint is on line 8
	pcrs     = "    - tpm:\n        options:\n          pcrs: "
	schemes  = "write grpc:// for plaintext or https:// for TLS in front of the host"
	urlForm  = "write scheme://host:port, such as https://kms.example.com:443"
)

var kindMistakes = []mistake{
	{"static unknown field", keys + "    - static:\n        pasphrase: hunter2\n", "f:7: encryption.keys[0].static.passphrase: is empty; write the passphrase, in quotes if it starts with a sign\nf:8: encryption.keys[0].static.pasphrase: unknown field; did you mean passphrase?"},
	{"static with the passphrase as a field", keys + "    - static: {hunter2}\n", "f:7: encryption.keys[0].static: unknown field; the only field here is passphrase\nf:7: encryption.keys[0].static.passphrase: is empty; write the passphrase, in quotes if it starts with a sign"},
	{"static with the passphrase as a field twice", keys + "    - static: {passphrase: a, hunter2, hunter2}\n", "f:7: encryption.keys[0].static: a field in it is there twice, first on line 7; keep one of them\nf:7: encryption.keys[0].static: unknown field; the only field here is passphrase\nf:7: encryption.keys[0].static: unknown field; the only field here is passphrase"},
	{"static as text", keys + "    - static: hunter2\n", "f:7: encryption.keys[0].static: is text, not a mapping; write it as field: value"},
	{"passphrase missing", keys + "    - static: {}\n", "f:7: encryption.keys[0].static.passphrase: is empty; write the passphrase, in quotes if it starts with a sign"},
	{"passphrase empty", keys + "    - static:\n        passphrase: \"\"\n", "f:8: encryption.keys[0].static.passphrase: is empty; write the passphrase, in quotes if it starts with a sign"},
	{"passphrase null", keys + "    - static:\n        passphrase: null\n", "f:8: encryption.keys[0].static.passphrase: is empty; write the passphrase, in quotes if it starts with a sign"},
	{"passphrase eaten by an anchor", keys + "    - static:\n        passphrase: &hunter2\n", "f:8: encryption.keys[0].static.passphrase: is empty; write the passphrase, in quotes if it starts with a sign"},
	{"passphrase with a tag", keys + "    - static:\n        passphrase: !hunter2 hunter2\n", "f:8: encryption.keys[0].static.passphrase: is a value of another type, not text; write the text in quotes"},
	{"passphrase in base64", keys + "    - static:\n        passphrase: !!binary aHVudGVyMg==\n", "f:8: encryption.keys[0].static.passphrase: is a value of another type, not text; write the text in quotes"},
	{"passphrase as a list", keys + "    - static:\n        passphrase: [hunter2]\n", "f:8: encryption.keys[0].static.passphrase: is a list, not text; write the text in quotes"},
	{"passphrase as a merge key", keys + "    - static:\n        passphrase: <<\n", "f:8: encryption.keys[0].static.passphrase: is a value of another type, not text; write the text in quotes"},
	{"passphrase too long", keys + "    - static:\n        passphrase: " + strings.Repeat("hunter2", 10_000) + "\n", "f:8: encryption.keys[0].static.passphrase: is longer than 64 KiB; use a shorter passphrase"},
	{"nodeID unknown field", keys + "    - nodeID: {salt: 1}\n", "f:7: encryption.keys[0].nodeID.salt: unknown field; there are no fields here"},
	{"kms unknown field", keys + "    - kms: {endpoint: 'https://k', url: x}\n", "f:7: encryption.keys[0].kms.url: unknown field; the fields here are endpoint, endpoints, authorities, certificate, key, serverName, tls12"},
	{"kms without endpoint", keys + "    - kms: {}\n", "f:7: encryption.keys[0].kms.endpoint: is empty; write the server's URL, such as https://kms.example.com"},
	{"endpoint empty", keys + endpoint + "''\n", "f:8: encryption.keys[0].kms.endpoint: is empty; write the server's URL, such as https://kms.example.com"},
	{"endpoint without scheme", keys + endpoint + "kms.example.com:4050\n", "f:8: encryption.keys[0].kms.endpoint: has no scheme, which Talos would take for plaintext; " + schemes},
	{"endpoint with unknown scheme", keys + endpoint + "http://kms.example.com\n", "f:8: encryption.keys[0].kms.endpoint: has an unknown scheme; " + schemes},
	{"endpoint unparsable", keys + endpoint + "https://kms example\n", "f:8: encryption.keys[0].kms.endpoint: is not a URL; " + urlForm},
	{"endpoint without host", keys + endpoint + "grpc://\n", "f:8: encryption.keys[0].kms.endpoint: has no host; " + urlForm},
	{"endpoint with port alone", keys + endpoint + "grpc://:4050\n", "f:8: encryption.keys[0].kms.endpoint: has no host; " + urlForm},
	{"endpoint with port 0", keys + endpoint + "grpc://k:0\n", "f:8: encryption.keys[0].kms.endpoint: has a port that is out of range; write a port from 1 to 65535"},
	{"endpoint with port 65536", keys + endpoint + "grpc://k:65536\n", "f:8: encryption.keys[0].kms.endpoint: has a port that is out of range; write a port from 1 to 65535"},
	{"endpoint with password", keys + endpoint + "https://me:hunter2@k\n", "f:8: encryption.keys[0].kms.endpoint: has a user name, which the protocol has no use for; remove what is between :// and @"},
	{"kms further endpoint without scheme", keys + "    - kms:\n        endpoint: https://k\n        endpoints: [https://l, m]\n", "f:9: encryption.keys[0].kms.endpoints[1]: has no scheme, which Talos would take for plaintext; " + schemes},
	{"kms too many endpoints", keys + "    - kms:\n        endpoint: https://k\n        endpoints: [" + strings.Repeat("https://l, ", 16) + "https://l]\n", "f:9: encryption.keys[0].kms.endpoints: has 17 entries; keep at most 16: they share the time for one answer"},
	{"kms authorities that are none", keys + "    - kms: {endpoint: 'https://k', authorities: hunter2}\n", "f:7: encryption.keys[0].kms.authorities: holds no certificate in PEM; write the certificates of those who issue the servers', with authorities: | before them"},
	{"kms certificate alone", keys + "    - kms:\n        endpoint: https://k\n        certificate: |\n" + indent(certificate, 10), "f:9: encryption.keys[0].kms.certificate: has no key beside it; write the private key of the certificate as key"},
	{"kms key alone", keys + "    - kms:\n        endpoint: https://k\n        key: hunter2\n", "f:9: encryption.keys[0].kms.key: has no certificate beside it; write the certificate of the key as certificate"},
	{"kms key of another certificate", keys + "    - kms:\n        endpoint: https://k\n        certificate: |\n" + indent(certificate, 10) + "        key: |\n" + indent(otherKey, 10), "f:9: encryption.keys[0].kms.certificate: and key are not a certificate and its private key in PEM; write both as they were issued, with certificate: | and key: | before them"},
	{"tpm unknown field", keys + "    - tpm: {pcrs: [7]}\n", "f:7: encryption.keys[0].tpm.pcrs: unknown field; the fields here are checkSecurebootStatusOnEnroll, checkSecurebootStatusOnUnseal, format, pin, latch, reseal, signingKey, allowWeakPolicy, options"},
	{"tpm options unknown field", keys + "    - tpm: {options: {pcr: [7]}}\n", "f:7: encryption.keys[0].tpm.options.pcr: unknown field; did you mean pcrs?"},
	{"more servers for STATE", strings.Replace(keys, "EPHEMERAL", "STATE", 1) + "    - kms: {endpoint: https://a, endpoints: [https://b]}\n", "f:7: encryption.keys[0].kms.endpoints: STATE is opened before this file is read, and META keeps the endpoint only; remove it: what the servers of STATE's keys need besides, the boot image brings"},
	{"a server's name for STATE", strings.Replace(keys, "EPHEMERAL", "STATE", 1) + "    - kms: {endpoint: https://a, serverName: b}\n", "f:7: encryption.keys[0].kms.serverName: STATE is opened before this file is read, and META keeps the endpoint only; remove it: what the servers of STATE's keys need besides, the boot image brings"},
	{"tpm check at unsealing STATE", strings.Replace(keys, "EPHEMERAL", "STATE", 1) + "    - tpm: {checkSecurebootStatusOnUnseal: true}\n", "f:7: encryption.keys[0].tpm.checkSecurebootStatusOnUnseal: STATE is opened before this file is read; remove it: a key that is bound to PCR 7 opens only with Secure Boot as it was"},
	{"tpm format unknown", keys + "    - tpm: {format: clevis}\n", "f:7: encryption.keys[0].tpm.format: clevis is no format of tokens; write cryptctl, talos or systemd"},
	{"tpm format talos with a PIN", keys + "    - tpm: {format: talos, pin: true}\n", "f:7: encryption.keys[0].tpm.pin: tokens of talos have no PIN; remove pin, or write format: cryptctl"},
	{"tpm format systemd with a latch", keys + "    - tpm: {format: systemd, latch: true}\n", "f:7: encryption.keys[0].tpm.latch: tokens of systemd have no latch; remove latch, or write format: cryptctl"},
	{"tpm signing key that is no PEM", keys + "    - tpm: {signingKey: hunter2}\n", "f:7: encryption.keys[0].tpm.signingKey: is not one public key in PEM; write the key as \"openssl rsa -pubout\" gives it, with signingKey: | before it"},
	{"tpm signing key that is none", keys + "    - tpm:\n        signingKey: |\n          -----BEGIN PUBLIC KEY-----\n          AAAA\n          -----END PUBLIC KEY-----\n", "f:8: encryption.keys[0].tpm.signingKey: cannot be read as a public key; write the key as \"openssl rsa -pubout\" gives it"},
	{"tpm signing key on a curve", keys + "    - tpm:\n        signingKey: |\n" + indent(edwardsKey, 10), "f:8: encryption.keys[0].tpm.signingKey: is not an RSA key, and TPM policies of boot images are signed with RSA; write the key of the boot image's signer"},
	{"tpm latch as text", keys + "    - tpm: {latch: often}\n", "f:7: encryption.keys[0].tpm.latch: is text, not a truth value; write true or false"},
	{"PCR above 23", keys + pcrs + "[7, 24]\n", "f:9: encryption.keys[0].tpm.options.pcrs[1]: 24 is not a PCR; write a number from 0 to 23"},
	{"PCR negative", keys + pcrs + "[-1]\n", "f:9: encryption.keys[0].tpm.options.pcrs[0]: -1 is not a PCR; write a number from 0 to 23"},
	{"PCR 11", keys + pcrs + "[7, 11]\n", "f:9: encryption.keys[0].tpm.options.pcrs[1]: PCR 11 measures the boot image, so the key would be lost with every upgrade; leave it out: the image's signed policy for PCR 11 always applies"},
	{"PCR 16", keys + pcrs + "[16]\n", "f:9: encryption.keys[0].tpm.options.pcrs[0]: PCR 16 can be reset by any program, so it proves nothing; leave it out"},
	{"PCR 23", keys + pcrs + "[23]\n", "f:9: encryption.keys[0].tpm.options.pcrs[0]: PCR 23 can be reset by any program, so it proves nothing; leave it out"},
	{"PCR empty", keys + pcrs + "\n          -\n", "f:10: encryption.keys[0].tpm.options.pcrs[0]: is empty; write the number of a PCR"},
	{"too many PCRs", keys + pcrs + "[" + strings.Repeat("7, ", 24) + "7]\n", "f:9: encryption.keys[0].tpm.options.pcrs: has 25 entries; keep at most 24: a TPM has no more PCRs"},
}

const both = "\n---\n" + head + "  provider: luks2\n" + key

var documentMistakes = []mistake{
	{"volume unknown", strings.Replace(head, "EPHEMERAL", "DATA", 1) + "  provider: luks2\n" + key, "f:3: name: there is no system volume DATA; the system volumes are STATE, EPHEMERAL, IMAGECACHE, ETCD, CRI, KUBELET, LOG"},
	{"volume misspelt", strings.Replace(head, "EPHEMERAL", "IMAGE-CACHE", 1) + "  provider: luks2\n" + key, "f:3: name: there is no system volume IMAGE-CACHE; did you mean IMAGECACHE?"},
	{"name missing", strings.Replace(head, "name: EPHEMERAL\n", "", 1) + "  provider: luks2\n" + key, "f:1: name: is missing; name the volume"},
	{"user volume name", userVolume("a_b"), "f:3: name: a_b is not a volume name; use 1 to 34 of the letters A-Z and a-z, digits and -"},
	{"user volume name too long", userVolume(strings.Repeat("a", 35)), "f:3: name: " + strings.Repeat("a", 35) + " is not a volume name; use 1 to 34 of the letters A-Z and a-z, digits and -"},
	{"user volume name far too long", userVolume(strings.Repeat("a", 99)), "f:3: name: " + strings.Repeat("a", 64) + "... is not a volume name; use 1 to 34 of the letters A-Z and a-z, digits and -"},
	{"user volume name empty", userVolume("''"), `f:3: name: "" is not a volume name; use 1 to 34 of the letters A-Z and a-z, digits and -`},
	{"user volume is a directory", "volumeType: directory\n" + userVolume("a"), "f:1: volumeType: a directory cannot be encrypted; remove the encryption block, or make the volume a partition or disk"},
	{"apiVersion missing", "#" + head + "  provider: luks2\n" + key, "f:2: apiVersion: is missing; write apiVersion: v1alpha1"},
	{"apiVersion unknown", strings.Replace(head, "v1alpha1", "v1beta1", 1) + "  provider: luks2\n" + key, "f:1: apiVersion: is not v1alpha1, the only version there is; write apiVersion: v1alpha1"},
	{"kind missing", "apiVersion: v1alpha1\nname: STATE\n", "f:1: kind: is missing; write the document's kind, such as VolumeConfig"},
	{"encryption misspelt", strings.Replace(head, "encryption", "encrytion", 1) + "  provider: luks2\n" + key, "f:4: encrytion: unknown field; did you mean encryption?"},
	{"volume twice", head + "  provider: luks2\n" + key + both, "f:9: document v1alpha1/VolumeConfig/EPHEMERAL is there twice, first on line 1; keep one of them, or merge the two"},
	{"volume twice, once none", head + "  provider: none\n" + both, "f:8: document v1alpha1/VolumeConfig/EPHEMERAL is there twice, first on line 1; keep one of them, or merge the two"},
	{"volume in both dialects", "machine:\n  systemDiskEncryption:\n    ephemeral:\n      keys: [{nodeID: {}}]\n" + both, "f:10: encryption: volume EPHEMERAL is also configured at f:3; keep one of the two"},
	{"volume in both dialects, other order", head + "  provider: luks2\n" + key + "---\nmachine:\n  systemDiskEncryption:\n    ephemeral:\n      keys: [{nodeID: {}}]\n", "f:10: machine.systemDiskEncryption.ephemeral: volume EPHEMERAL is also configured at f:4; keep one of the two"},
	{"document is a list", "- a\n", "f:1: is a list, not a mapping; write it as field: value"},
	{"document is text", "hunter2\n", "f:1: is text, not a mapping; write it as field: value"},
}

func userVolume(name string) string {
	return "apiVersion: v1alpha1\nkind: UserVolumeConfig\nname: " + name + "\nencryption:\n  provider: luks2\n" + key
}

const newer = "unknown field in machine.systemDiskEncryption; move the encryption to a VolumeConfig document, which has it"

var mainMistakes = []mistake{
	{"systemDiskEncryption misspelt", "machine:\n  systemDiskEncrypton:\n    state: {}\n", "f:2: machine.systemDiskEncrypton: unknown field; did you mean systemDiskEncryption?"},
	{"unknown volume", "machine:\n  systemDiskEncryption:\n    stat: {keys: [{nodeID: {}}]}\n", "f:3: machine.systemDiskEncryption.stat: unknown field; did you mean state?"},
	{"v1alpha1 block without keys", "machine:\n  systemDiskEncryption:\n    state: {}\n", "f:3: machine.systemDiskEncryption.state.keys: there are no keys; add a key, such as - slot: 0 with nodeID: {}"},
	{"v1alpha1 unknown field", state + "      cypher: x\n      keys: [{nodeID: {}}]\n", "f:4: machine.systemDiskEncryption.state.cypher: unknown field; did you mean cipher?"},
	{"v1alpha1 unknown provider", state + "      provider: luks\n      keys: [{nodeID: {}}]\n", "f:4: machine.systemDiskEncryption.state.provider: unknown provider luks; write provider: luks2, or remove the block to leave the volume unencrypted"},
	{"v1alpha1 provider in other case", state + "      provider: LUKS2\n      keys: [{nodeID: {}}]\n", "f:4: machine.systemDiskEncryption.state.provider: unknown provider LUKS2; write provider: luks2, or remove the block to leave the volume unencrypted"},
	{"v1alpha1 provider none", state + "      provider: none\n      keys: [{nodeID: {}}]\n", "f:4: machine.systemDiskEncryption.state.provider: unknown provider none; write provider: luks2, or remove the block to leave the volume unencrypted"},
	{"v1alpha1 lockToState", stated + "        - nodeID: {}\n          lockToState: true\n", "f:6: machine.systemDiskEncryption.state.keys[0].lockToState: " + newer},
	{"v1alpha1 allowDiscards", state + "      allowDiscards: true\n      keys: [{nodeID: {}}]\n", "f:4: machine.systemDiskEncryption.state.allowDiscards: " + newer},
	{"v1alpha1 tpm options", stated + "        - tpm:\n            options: {pcrs: [11]}\n", "f:6: machine.systemDiskEncryption.state.keys[0].tpm.options: " + newer},
	{"v1alpha1 slot twice", stated + "        - nodeID: {}\n        - {slot: 0, tpm: {}}\n", "f:6: machine.systemDiskEncryption.state.keys[1].slot: slot 0 is also used by machine.systemDiskEncryption.state.keys[0] on line 5; give each key a slot of its own, 0 to 31"},
	{"v1alpha1 no kind", stated + "        - slot: 1\n", "f:5: machine.systemDiskEncryption.state.keys[0]: the key has no kind; add one of static, nodeID, kms, tpm"},
	{"version unknown", "version: v1beta1\n" + stated + "        - nodeID: {}\n", "f:1: version: is not v1alpha1, the only version there is; write version: v1alpha1"},
	{"main document twice", stated + "        - nodeID: {}\n---\n" + stated + "        - nodeID: {}\n", "f:7: document v1alpha1 is there twice, first on line 1; keep one of them, or merge the two"},
}

var typeMistakes = []mistake{
	{"slot as text", keys + "    - nodeID: {}\n      slot: abc\n", "f:8: encryption.keys[0].slot: is text, not a whole number; write a number without quotes"},
	{"slot in quotes", keys + "    - nodeID: {}\n      slot: \"1\"\n", "f:8: encryption.keys[0].slot: is text, not a whole number; write a number without quotes"},
	{"slot as decimal", keys + "    - nodeID: {}\n      slot: 1.0\n", "f:8: encryption.keys[0].slot: is a decimal or too large number, not a whole number; write a number without quotes"},
	{"slot as list", keys + "    - nodeID: {}\n      slot: [1]\n", "f:8: encryption.keys[0].slot: is a list, not a whole number; write a number without quotes"},
	{"slot with a lying tag", keys + "    - nodeID: {}\n      slot: !!int abc\n", "f:8: encryption.keys[0].slot: is not a number that fits into 64 bits; write a smaller number"},
	{"lockToState as text", keys + "    - nodeID: {}\n      lockToState: maybe\n", "f:8: encryption.keys[0].lockToState: is text, not a truth value; write true or false"},
	{"lockToState as number", keys + "    - nodeID: {}\n      lockToState: 1\n", "f:8: encryption.keys[0].lockToState: is a number, not a truth value; write true or false"},
	{"allowDiscards as mapping", head + "  provider: luks2\n  allowDiscards: {}\n" + key, "f:6: encryption.allowDiscards: is a mapping, not a truth value; write true or false"},
	{"keySize as truth value", head + "  provider: luks2\n  keySize: true\n" + key, "f:6: encryption.keySize: is a truth value, not a whole number; write a number without quotes"},
	{"blockSize with a unit", head + "  provider: luks2\n  blockSize: 4KiB\n" + key, "f:6: encryption.blockSize: is text, not a whole number; write a number without quotes"},
	{"cipher as list", head + "  provider: luks2\n  cipher: [aes-xts-plain64]\n" + key, "f:6: encryption.cipher: is a list, not text; write the text in quotes"},
	{"provider as mapping", head + "  provider: {luks2: 1}\n" + key, "f:5: encryption.provider: is a mapping, not text; write the text in quotes"},
	{"options as text", head + "  provider: luks2\n  options: same_cpu_crypt\n" + key, "f:6: encryption.options: is text, not a list; write it as [entry, entry] or as lines that start with -"},
	{"option as mapping", head + "  provider: luks2\n  options: [{same_cpu_crypt: true}]\n" + key, "f:6: encryption.options[0]: is a mapping, not text; write the text in quotes"},
	{"keys as mapping", head + "  provider: luks2\n  keys: {nodeID: {}}\n", "f:6: encryption.keys: is a mapping, not a list; write it as [entry, entry] or as lines that start with -"},
	{"key as text", keys + "    - hunter2\n", "f:7: encryption.keys[0]: is text, not a mapping; write it as field: value"},
	{"endpoint as list", keys + endpoint + "[a]\n", "f:8: encryption.keys[0].kms.endpoint: is a list, not text; write the text in quotes"},
	{"pcrs as number", keys + pcrs + "7\n", "f:9: encryption.keys[0].tpm.options.pcrs: is a number, not a list; write it as [entry, entry] or as lines that start with -"},
	{"PCR as text", keys + pcrs + "[seven]\n", "f:9: encryption.keys[0].tpm.options.pcrs[0]: is text, not a whole number; write a number without quotes"},
	{"options of tpm as list", keys + "    - tpm: {options: [7]}\n", "f:7: encryption.keys[0].tpm.options: is a list, not a mapping; write it as field: value"},
	{"encryption as text", "kind: VolumeConfig\napiVersion: v1alpha1\nname: STATE\nencryption: luks2\n", "f:4: encryption: is text, not a mapping; write it as field: value"},
	{"encryption of wrong type twice", "kind: VolumeConfig\napiVersion: v1alpha1\nname: EPHEMERAL\nencryption: luks2" + both, "f:4: encryption: is text, not a mapping; write it as field: value\nf:6: document v1alpha1/VolumeConfig/EPHEMERAL is there twice, first on line 1; keep one of them, or merge the two"},
	{"kms as text", keys + "    - kms: grpc://k\n", "f:7: encryption.keys[0].kms: is text, not a mapping; write it as field: value"},
	{"tpm as truth value", keys + "    - tpm: true\n", "f:7: encryption.keys[0].tpm: is a truth value, not a mapping; write it as field: value"},
	{"machine as list", "machine: []\n", "f:1: machine: is a list, not a mapping; write it as field: value"},
	{"systemDiskEncryption as truth value", "machine:\n  systemDiskEncryption: true\n", "f:2: machine.systemDiskEncryption: is a truth value, not a mapping; write it as field: value"},
	{"name as list", "kind: VolumeConfig\napiVersion: v1alpha1\nname: [STATE]\nencryption:\n  provider: luks2\n" + key, "f:3: name: is a list, not text; write the text in quotes"},
	{"kind as list", "kind: [VolumeConfig]\n", "f:1: kind: is a list, not text; write the text in quotes"},
	{"apiVersion as list", "apiVersion: []\nkind: VolumeConfig\nname: STATE\nencryption:\n  provider: luks2\n" + key, "f:1: apiVersion: is a list, not text; write the text in quotes"},
}

var yamlMistakes = []mistake{
	{"field twice in a block", head + "  provider: none\n  provider: luks2\n" + key, "f:5: encryption.provider: is none, but there are keys; write provider: luks2, or remove the keys\nf:6: encryption.provider: the field is there twice, first on line 5; keep one of them"},
	{"field twice in a key", keys + "    - nodeID: {}\n      slot: 1\n      slot: 2\n", "f:9: encryption.keys[0].slot: the field is there twice, first on line 8; keep one of them"},
	{"field twice elsewhere", "machine:\n  network:\n    - a: 1\n      a: 2\n", "f:4: machine.network[0].a: the field is there twice, first on line 3; keep one of them"},
	{"field twice, once quoted", "machine: {}\n\"machine\": {}\n", "f:2: machine: the field is there twice, first on line 1; keep one of them"},
	{"field twice, once as an alias", "machine: {a: &a machine}\n*a : {}\n", "f:2: machine: the field is there twice, first on line 1; keep one of them"},
	{"block twice", state + "      keys: [{nodeID: {}}]\n    state:\n      keys: [{nodeID: {}}]\n", "f:5: machine.systemDiskEncryption.state: the field is there twice, first on line 3; keep one of them"},
	{"merge key in a block", "x: &x {keys: [{nodeID: {}}]}\n" + head + "  <<: *x\n  provider: luks2\n", "f:6: encryption: merge key << is not supported here; write the fields out"},
	{"merge key above a block", "machine:\n  <<: {systemDiskEncryption: {}}\n", "f:2: machine: merge key << is not supported here; write the fields out"},
	{"syntax", head + "  provider: luks2\n  keys: [\n", "f:7: did not find expected node content; mend the YAML on this line or the one above"},
	{"syntax and a mistake before it", head + "  provider: luks2\n---\na: 'b\n", "f:4: encryption.keys: there are no keys; add a key, such as - slot: 0 with nodeID: {}\nf:8: found unexpected end of stream; mend the YAML on this line or the one above"},
	{"passphrase as an alias", keys + "    - static:\n        passphrase: *hunter2\n", "f:8: an alias names no anchor of this document; put text that starts with * in quotes"},
	{"passphrase as a bad tag", keys + "    - static:\n        passphrase: !hunter2{2 x\n", "f:8: a tag has a character that tags do not have; put text that starts with ! in quotes"},
	{"passphrase with a sign", keys + "    - static:\n        passphrase: @hunter2\n", "f:8: found character that cannot start any token; mend the YAML on this line or the one above"},
	{"control character", keys + "    - static:\n        passphrase: hunter2\x01\n", "f:8: control characters are not allowed; write the file as UTF-8, with other characters as escapes in double quotes"},
	{"not UTF-8", keys + "    - static:\n        passphrase: hunter2\xff\n", "f:8: is not UTF-8; write the file as UTF-8, with other characters as escapes in double quotes"},
}

// TestAllMistakesAtOnce: one Read reports everything, in the order of sources
// and lines.
func TestAllMistakesAtOnce(t *testing.T) {
	_, err := config.Read(
		config.Source{Name: "one", Data: []byte(keys + "    - {slot: 40, kms: {endpoint: k}}\n    - static: {passphrase: hunter2}\n  cipher: rot13\n---\na: 'b")},
		config.Source{Name: "two", Data: []byte(stated + "        - lockToState: true\n")},
		config.Source{Name: "three", Data: []byte(head + "  provider: luks2\n" + key)},
	)
	want := []string{
		"one:7: encryption.keys[0].slot: 40 is not a slot; write a number from 0 to 31",
		"one:7: encryption.keys[0].kms.endpoint: has no scheme, which Talos would take for plaintext; " + schemes,
		"one:9: encryption.cipher: unknown cipher rot13; write one of aes-xts-plain64 or xchacha12,aes-adiantum-plain64 or xchacha20,aes-adiantum-plain64",
		"one:11: found unexpected end of stream; mend the YAML on this line or the one above",
		"two:5: machine.systemDiskEncryption.state.keys[0].lockToState: " + newer,
		"two:5: machine.systemDiskEncryption.state.keys[0]: the key has no kind; add one of static, nodeID, kms, tpm",
		"three:4: encryption: volume EPHEMERAL is also configured at one:4; keep one of the two",
	}
	if err == nil {
		t.Fatal("no error")
	}
	if d := cmp.Diff(want, strings.Split(err.Error(), "\n")); d != "" {
		t.Errorf("errors (-want +got):\n%s", d)
	}
	checkErrors(t, err)
}
