package meta_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/meta"
	"github.com/cryptctl/cryptctl/secret"
)

// What Talos writes (internal/app/machined/pkg/controllers/block/internal/volumes,
// encryption_meta_test.go): since 1.11, before that, and after 1.13 with a kind
// of key that is not known here.
const (
	modern = `{"EncryptionProvider":"luks2","EncryptionKeys":[{"KeySlot":0,"KeyStatic":{"KeyData":"secret"},"KeyNodeID":null,"KeyKMS":null,"KeyTPM":null,"KeyLockToSTATE":null},{"KeySlot":1,"KeyStatic":null,"KeyNodeID":{},"KeyKMS":null,"KeyTPM":null,"KeyLockToSTATE":null}],"EncryptionCipher":"aes-xts-plain64","EncryptionKeySize":0,"EncryptionBlockSize":0,"EncryptionPerfOptions":null,"EncryptionAllowDiscards":null}`
	old    = `{"EncryptionProvider":"","EncryptionKeys":[{"KeyStatic":{"KeyData":"secret"},"KeyNodeID":null,"KeyKMS":null,"KeySlot":0,"KeyTPM":null},{"KeyStatic":null,"KeyNodeID":{},"KeyKMS":null,"KeySlot":1,"KeyTPM":null}],"EncryptionCipher":"aes-xts-plain64","EncryptionKeySize":0,"EncryptionBlockSize":0,"EncryptionPerfOptions":null}`
	newer  = `{"EncryptionProvider":"luks2","EncryptionKeys":[{"KeySlot":0,"KeyStatic":{"KeyData":"secret"},"KeyNodeID":null,"KeyKMS":null,"KeyTPM":null,"KeyRecovery":null,"KeyLockToSTATE":null},{"KeySlot":1,"KeyStatic":null,"KeyNodeID":{},"KeyKMS":null,"KeyTPM":null,"KeyRecovery":null,"KeyLockToSTATE":null}],"EncryptionCipher":"aes-xts-plain64","EncryptionKeySize":0,"EncryptionBlockSize":0,"EncryptionPerfOptions":null,"EncryptionAllowDiscards":null}`

	everything = `{"EncryptionProvider":"luks2","EncryptionKeys":[{"KeySlot":31,"KeyStatic":null,"KeyNodeID":null,"KeyKMS":{"KMSEndpoint":"https://kms.example.com/?a=1\u0026b=2"},"KeyTPM":null,"KeyLockToSTATE":true},{"KeySlot":2,"KeyStatic":null,"KeyNodeID":null,"KeyKMS":null,"KeyTPM":{"TPMOptions":{"PCRs":[7]},"TPMCheckSecurebootStatusOnEnroll":true},"KeyLockToSTATE":null},{"KeySlot":3,"KeyStatic":null,"KeyNodeID":null,"KeyKMS":null,"KeyTPM":{"TPMOptions":null,"TPMCheckSecurebootStatusOnEnroll":null},"KeyLockToSTATE":null},{"KeySlot":4,"KeyStatic":null,"KeyNodeID":null,"KeyKMS":null,"KeyTPM":{"TPMOptions":{"PCRs":[]},"TPMCheckSecurebootStatusOnEnroll":null},"KeyLockToSTATE":null}],"EncryptionCipher":"xchacha20,aes-adiantum-plain64","EncryptionKeySize":256,"EncryptionBlockSize":4096,"EncryptionPerfOptions":["no_read_workqueue","same_cpu_crypt"],"EncryptionAllowDiscards":true}`
)

func passphrase(s string) *secret.Bytes { return secret.Copy([]byte(s)) }

// plain is what the first three say.
func plain() *meta.Encryption {
	return &meta.Encryption{Cipher: "aes-xts-plain64", Keys: []meta.Key{{Slot: 0, Static: passphrase("secret")}, {Slot: 1, NodeID: true}}}
}

func all() *meta.Encryption {
	return &meta.Encryption{
		Cipher: "xchacha20,aes-adiantum-plain64", KeySize: 256, BlockSize: 4096,
		PerfOptions: []string{"no_read_workqueue", "same_cpu_crypt"}, AllowDiscards: true,
		Keys: []meta.Key{
			{Slot: 31, KMS: &meta.KMS{Endpoint: "https://kms.example.com/?a=1&b=2"}, LockToState: true},
			{Slot: 2, TPM: &meta.TPM{PCRs: []int{7}, CheckSecureboot: true}},
			{Slot: 3, TPM: &meta.TPM{}},
			{Slot: 4, TPM: &meta.TPM{PCRs: []int{}}},
		},
	}
}

// config is a config with these keys and otherwise nothing special.
func config(keys string) string {
	return `{"EncryptionProvider":"luks2","EncryptionKeys":[` + keys + `]}`
}

// key is a modern key with one member beside its slot.
func key(slot int, member string) string { return fmt.Sprintf(`{"KeySlot":%d,%s}`, slot, member) }

const nodeID = `"KeyNodeID":{}`

type parsed struct {
	name string
	text string
	want *meta.Encryption
}

func readable() []parsed {
	keys := func(k ...meta.Key) *meta.Encryption { return &meta.Encryption{Keys: k} }
	var many []string
	var all32 []meta.Key
	for slot := range 32 {
		many = append(many, key(slot, nodeID))
		all32 = append(all32, meta.Key{Slot: slot, NodeID: true})
	}
	return []parsed{
		{"modern", modern, plain()},
		{"legacy", old, plain()},
		{"newer", newer, plain()},
		{"everything", everything, all()},
		{"not encrypted", "null", nil},
		{"not encrypted, with white space", " null\n", nil},
		{"provider none", `{"EncryptionProvider":"none","EncryptionKeys":null,"EncryptionCipher":""}`, nil},
		{"provider in capitals", strings.Replace(modern, "luks2", "LUKS2", 1), plain()},
		{"members in another case", strings.ToLower(modern), plain()},
		{"unknown members", `{"EncryptionProvider":"luks2","New":{"A":[1]},"EncryptionKeys":[{"KeySlot":5,"KeyNodeID":{"New":1},"KeyNew":{}}]}`, keys(meta.Key{Slot: 5, NodeID: true})},
		{"a kind that is not known", config(key(0, nodeID) + "," + key(1, `"KeyNodeID":null,"KeyRecovery":{},"KeyLockToSTATE":null`)), keys(meta.Key{NodeID: true}, meta.Key{Slot: 1, Unknown: "KeyRecovery"})},
		{"a passphrase with escapes", config(key(0, `"KeyStatic":{"KeyData":"a\"\\\u003c\u20ac\ud83d\ude00\u0000é"}`)), keys(meta.Key{Static: passphrase("a\"\\<€😀\x00é")})},
		{"a passphrase that is not UTF-8", config(key(0, "\"KeyStatic\":{\"KeyData\":\"\xff\"}")), keys(meta.Key{Static: passphrase("\ufffd")})},
		{"an empty passphrase", config(key(0, `"KeyStatic":{"KeyData":""}`)), keys(meta.Key{Static: passphrase("")})},
		{"no passphrase", config(key(0, `"KeyStatic":{}`)), keys(meta.Key{Static: passphrase("")})},
		{"PCRs null", config(key(0, `"KeyTPM":{"TPMOptions":{"PCRs":null}}`)), keys(meta.Key{TPM: &meta.TPM{PCRs: []int{}}})},
		{"settings false", config(key(0, `"KeyTPM":{"TPMCheckSecurebootStatusOnEnroll":false},"KeyLockToSTATE":false`)), keys(meta.Key{TPM: &meta.TPM{}})},
		{"PCRs in disorder", config(key(0, `"KeyTPM":{"TPMOptions":{"PCRs":[7,0,7]}}`)), keys(meta.Key{TPM: &meta.TPM{PCRs: []int{7, 0, 7}}})},
		{"32 keys", config(strings.Join(many, ",")), keys(all32...)},
	}
}

func TestParseEncryption(t *testing.T) {
	for _, test := range readable() {
		t.Run(test.name, func(t *testing.T) {
			got, err := meta.ParseEncryption([]byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, got, sameSecret); d != "" {
				t.Errorf("encryption (-want +got):\n%s", d)
			}
			got.Wipe()
			if got != nil && len(got.Keys) > 0 && got.Keys[0].Static.Len() > 0 {
				t.Error("not wiped")
			}
		})
	}
}

type unreadable struct{ name, text, want string }

func unreadables() []unreadable {
	pcrs := strings.Repeat("7,", 24) + "7"
	return []unreadable{
		{"nothing", "", "it is not JSON"},
		{"half of it", modern[:200], "it is not JSON"},
		{"zeros", "\x00\x00", "it is not JSON"},
		{"two values", "null null", "it is not JSON"},
		{"a number", "5", "of the JSON type number"},
		{"an array", "[" + modern + "]", "of the JSON type array"},
		{"a text", `"null"`, "of the JSON type string"},
		{"nested deep", strings.Repeat("[", 200_000), "it is not JSON"},
		{"nested deep and closed", strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), "it is not JSON"},
		{"too long", `"` + strings.Repeat("x", meta.Capacity) + `"`, "262106 bytes are more than META holds"},

		{"no members", "{}", "it names no provider"},
		{"provider null", strings.Replace(modern, `"luks2"`, "null", 1), "it names no provider"},
		{"provider is a number", strings.Replace(modern, `"luks2"`, "2", 1), "EncryptionProvider is of the JSON type number"},
		{"provider unknown", strings.Replace(modern, "luks2", "luks3", 1), `the provider "luks3" is not known`},
		{"provider long", strings.Replace(modern, "luks2", strings.Repeat("x", 1000), 1), `the provider "xxxx`},
		{"provider none with keys", strings.Replace(modern, "luks2", "none", 1), "the provider is none, but there are keys"},

		{"no keys", config(""), "there are no keys"},
		{"keys null", `{"EncryptionProvider":"","EncryptionKeys":null}`, "there are no keys"},
		{"keys are an object", `{"EncryptionProvider":"luks2","EncryptionKeys":{}}`, "EncryptionKeys is of the JSON type object"},
		{"33 keys", config(strings.Repeat(key(0, nodeID)+",", 32) + key(1, nodeID)), "it has 33 keys; LUKS2 has room for 32"},
		{"key null", config("null"), "key 1: it names no slot"},
		{"key is a text", config(key(0, nodeID) + `,"x"`), "key 2: it is of the JSON type string"},
		{"slot missing", config(`{"KeyNodeID":{}}`), "key 1: it names no slot"},
		{"slot null", config(`{"KeySlot":null,"KeyNodeID":{}}`), "key 1: it names no slot"},
		{"slot negative", config(key(-1, nodeID)), "key 1: -1 is not a slot"},
		{"slot 32", config(key(0, nodeID) + "," + key(32, nodeID)), "key 2: 32 is not a slot; slots are 0 to 31"},
		{"slot 2^64", config(`{"KeySlot":18446744073709551616,"KeyNodeID":{}}`), "KeySlot is of the JSON type number or out of range"},
		{"slot 0.5", config(`{"KeySlot":0.5,"KeyNodeID":{}}`), "KeySlot"},
		{"slot is a text", config(`{"KeySlot":"0","KeyNodeID":{}}`), "KeySlot is of the JSON type string"},
		{"slot twice", config(key(3, nodeID) + "," + key(4, nodeID) + "," + key(3, nodeID)), "key 3: slot 3 is also that of key 1"},

		{"no kind", config(key(7, `"KeyNodeID":null`)), "key 1 (slot 7) has no kind"},
		{"no kind, other members", config(key(7, `"KeyNew":true,"KeyOther":[{}]`)), "key 1 (slot 7) has no kind"},
		{"two kinds", config(key(7, nodeID+`,"KeyStatic":{"KeyData":"hunter2"}`)), "key 1 (slot 7) has several kinds: static, nodeID"},
		{"three kinds", config(key(7, nodeID+`,"KeyKMS":{"KMSEndpoint":"x"},"KeyTPM":{}`)), "several kinds: nodeID, kms, tpm"},
		{"nodeID is true", config(key(7, `"KeyNodeID":true`)), "KeyNodeID is of the JSON type bool"},
		{"passphrase is a number", config(key(7, `"KeyStatic":{"KeyData":19830405}`)), "KeyStatic.KeyData is of the JSON type number"},
		{"passphrase is a list", config(key(7, `"KeyStatic":{"KeyData":["hunter2"]}`)), "KeyStatic.KeyData is of the JSON type array"},
		{"static is the passphrase", config(key(7, `"KeyStatic":"hunter2"`)), "KeyStatic is of the JSON type string"},
		{"endpoint is a list", config(key(7, `"KeyKMS":{"KMSEndpoint":[]}`)), "KeyKMS.KMSEndpoint is of the JSON type array"},
		{"PCR 24", config(key(7, `"KeyTPM":{"TPMOptions":{"PCRs":[24]}}`)), "key 1 (slot 7) names PCRs that no TPM has"},
		{"PCR -1", config(key(7, `"KeyTPM":{"TPMOptions":{"PCRs":[-1]}}`)), "names PCRs that no TPM has"},
		{"25 PCRs", config(key(7, `"KeyTPM":{"TPMOptions":{"PCRs":[`+pcrs+`]}}`)), "names PCRs that no TPM has"},
		{"a good key, then a passphrase, then a bad key", config(key(0, `"KeyStatic":{"KeyData":"hunter2"}`) + "," + key(1, `"KeyStatic":{"KeyData":7}`)), "key 2: KeyStatic.KeyData"},

		{"a member twice", `{"EncryptionProvider":"luks2","EncryptionKeys":[],"EncryptionProvider":"none"}`, "the member at byte 50 is there twice"},
		{"a member twice in another case", `{"EncryptionProvider":"luks2","encryptionProvider":"none"}`, "is there twice"},
		{"a member twice with an escape", `{"EncryptionProvider":"luks2","\u0045ncryptionProvider":"none"}`, "is there twice"},
		{"a member twice with a Kelvin sign", config("{\"KeySlot\":1,\"\u212aeySlot\":2,\"KeyNodeID\":{}}"), "is there twice"},
		{"a member twice with a long s", config("{\"KeySlot\":1,\"Key\u017flot\":2,\"KeyNodeID\":{}}"), "is there twice"},
		{"a passphrase twice", config(key(7, `"KeyStatic":{"KeyData":"hunter2","KeyData":"hunter3"}`)), "is there twice"},
		{"negative sizes", `{"EncryptionProvider":"luks2","EncryptionKeySize":-1}`, "EncryptionKeySize is of the JSON type number or out of range"},
	}
}

// TestRefusedEncryption: what could be misread is refused, with a message that
// shows no passphrase.
func TestRefusedEncryption(t *testing.T) {
	for _, test := range unreadables() {
		t.Run(test.name, func(t *testing.T) {
			e, err := meta.ParseEncryption([]byte(test.text))
			if err == nil || e != nil {
				t.Fatalf("%+v, %v", e, err)
			}
			if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "tag 0x09") {
				t.Errorf("error lacks %q: %v", test.want, err)
			}
			for _, shown := range []string{"hunter", "19830405"} {
				if strings.Contains(err.Error(), shown) {
					t.Errorf("the error shows a passphrase: %v", err)
				}
			}
			if len(err.Error()) > 300 {
				t.Errorf("a message of %d bytes", len(err.Error()))
			}
		})
	}
}

// TestEncode: the bytes are those that Talos writes.
func TestEncode(t *testing.T) {
	for name, test := range map[string]struct {
		e    *meta.Encryption
		want string
	}{
		"modern":     {plain(), modern},
		"everything": {all(), everything},
		"nil":        {nil, "null"},
		"escapes": {
			&meta.Encryption{Keys: []meta.Key{{Static: passphrase("a\"\\<>&\u2028\t\x01é")}}},
			`{"EncryptionProvider":"luks2","EncryptionKeys":[{"KeySlot":0,"KeyStatic":{"KeyData":"a\"\\\u003c\u003e\u0026\u2028\t\u0001é"},"KeyNodeID":null,"KeyKMS":null,"KeyTPM":null,"KeyLockToSTATE":null}],"EncryptionCipher":"","EncryptionKeySize":0,"EncryptionBlockSize":0,"EncryptionPerfOptions":null,"EncryptionAllowDiscards":null}`,
		},
	} {
		got, err := test.e.Encode()
		if err != nil || string(got) != test.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got, test.want)
		}
		if !json.Valid(got) {
			t.Errorf("%s: not JSON", name)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	keys := func(k ...meta.Key) *meta.Encryption { return &meta.Encryption{Keys: k} }
	for name, test := range map[string]struct {
		e    *meta.Encryption
		want string
	}{
		"no keys":                        {&meta.Encryption{}, "there are no keys"},
		"no kind":                        {keys(meta.Key{Slot: 1}), "key 1 (slot 1) has no kind"},
		"two kinds":                      {keys(meta.Key{Slot: 1, NodeID: true, TPM: &meta.TPM{}}), "several kinds: nodeID, tpm"},
		"slot 32":                        {keys(meta.Key{Slot: 32, NodeID: true}), "32 is not a slot"},
		"slot twice":                     {keys(meta.Key{NodeID: true}, meta.Key{NodeID: true}), "slot 0 is also that of key 1"},
		"kind of a newer Talos":          {keys(meta.Key{NodeID: true}, meta.Key{Slot: 1, Unknown: "KeyRecovery"}), "key 2 (slot 1) is of the kind KeyRecovery"},
		"PCR 24":                         {keys(meta.Key{TPM: &meta.TPM{PCRs: []int{24}}}), "PCRs that no TPM has"},
		"a passphrase that is not UTF-8": {keys(meta.Key{Static: passphrase("hunter2\xff")}), "key 1 (slot 0) has text that is not UTF-8"},
		"an endpoint that is not UTF-8":  {keys(meta.Key{KMS: &meta.KMS{Endpoint: "\xff"}}), "not UTF-8"},
		"a cipher that is not UTF-8":     {&meta.Encryption{Cipher: "\xff", Keys: []meta.Key{{NodeID: true}}}, "not UTF-8"},
		"an option that is not UTF-8":    {&meta.Encryption{PerfOptions: []string{"\xff"}, Keys: []meta.Key{{NodeID: true}}}, "not UTF-8"},
	} {
		data, err := test.e.Encode()
		if data != nil || err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %s, %v; want %q", name, data, err, test.want)
		}
	}
}

// encryptionSeeds are the seeds of the fuzz target.
func encryptionSeeds() (all []string) {
	for _, test := range readable() {
		all = append(all, test.text)
	}
	for _, test := range unreadables() {
		if len(test.text) < 10_000 {
			all = append(all, test.text)
		}
	}
	return all
}

// TestEncryptionSeeds: the seeds are there, and half of them get past the parser.
func TestEncryptionSeeds(t *testing.T) {
	good := 0
	for _, text := range encryptionSeeds() {
		if _, err := meta.ParseEncryption([]byte(text)); err == nil {
			good++
		}
	}
	if n := len(encryptionSeeds()); n < 60 || good != len(readable()) {
		t.Errorf("%d seeds, %d of them readable", n, good)
	}
}
