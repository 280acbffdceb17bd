package token_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/tpm/token"
)

func blob(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func own() token.Own {
	return token.Own{
		Slot: 7, Sealed: token.Sealed{Private: blob(1, 158), Public: blob(2, 78)},
		Parent: token.Parent{Template: "tcg-ecc", Public: blob(3, 90)}, EK: blob(4, 34),
		Policy: token.OwnPolicy{
			PCRs: map[int][]byte{7: blob(7, 8), 0: blob(9, 8)}, Latch: true,
			Signed: &token.OwnSigned{Key: blob(9, 294), PCRs: []int{11}},
			PIN:    &token.OwnPIN{Salt: blob(5, 32), Time: 4, MemoryKiB: 65536},
		},
		Envelope: blob(6, 105),
	}
}

func talos() token.Talos {
	return token.Talos{
		Slot: 2, Sealed: token.Sealed{Private: blob(1, 158), Public: blob(2, 78)}, KeyName: blob(3, 34),
		Digest: blob(4, 32), PCRs: []int{7}, Signed: []int{11},
	}
}

func systemd() token.Systemd {
	return token.Systemd{
		Slot: 5, Sealed: token.Sealed{Private: blob(1, 158), Public: blob(2, 78)}, PCRs: []int{0, 7}, Bank: "sha256", Alg: "ecc",
		Digest: blob(4, 32), PIN: true, Key: []byte("-----BEGIN PUBLIC KEY-----"), Signed: []int{11}, Salt: blob(8, 32),
		ParentName: blob(3, 34), ParentPublic: blob(2, 90),
	}
}

// TestRoundTrip: what is written is read, and a token of one kind is none of
// another.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	raw, err := own().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := token.ReadOwn(raw); err != nil || cmp.Diff(own(), got) != "" {
		t.Errorf("own: %v %s", err, cmp.Diff(own(), got))
	}
	if len(raw) > 1400 {
		t.Errorf("the longest usual token has %d bytes", len(raw))
	}
	if _, err := token.ReadTalos(raw); err == nil {
		t.Error("our token is read as one of Talos")
	}
	raw, err = talos().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := token.ReadTalos(raw); err != nil || cmp.Diff(talos(), got) != "" {
		t.Errorf("talos: %v %s", err, cmp.Diff(talos(), got))
	}
	raw, err = systemd().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := token.ReadSystemd(raw); err != nil || cmp.Diff(systemd(), got) != "" {
		t.Errorf("systemd: %v %s", err, cmp.Diff(systemd(), got))
	}
}

// recorded is our token with a record, which is bytes to this package.
func recorded() token.Own {
	o := own()
	o.Record = blob(10, 1024)
	return o
}

// TestRecord: the record is kept, a token without one has no such member, and one
// that is none takes nothing else from the token.
func TestRecord(t *testing.T) {
	t.Parallel()
	raw, err := recorded().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := token.ReadOwn(raw); err != nil || cmp.Diff(recorded(), got) != "" {
		t.Errorf("%v %s", err, cmp.Diff(recorded(), got))
	}
	if len(raw) > 2800 {
		t.Errorf("the longest token has %d bytes", len(raw))
	}
	plain, err := own().Encode()
	if err != nil || strings.Contains(string(plain), "record") {
		t.Errorf("without a record: %s, %v", plain, err)
	}
	broken := own()
	broken.Record = []byte{}
	for by, want := range map[string]token.Own{
		`null`: own(), `""`: broken, `"!"`: broken, `7`: broken, `true`: broken, `{"a":["b"]}`: broken, `["AAAA"]`: broken, `"AAA"`: broken,
		`"` + strings.Repeat("AAAA", 683) + `"`: broken, // 2049 bytes
	} {
		text := strings.Replace(string(plain), `{"type"`, `{"record":`+by+`,"type"`, 1)
		got, err := token.ReadOwn(json.RawMessage(text))
		if err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("the record %.20s: %v %s", by, err, cmp.Diff(want, got))
		}
		if again, err := got.Encode(); err != nil || string(again) != string(plain) {
			t.Errorf("the record %.20s is written as %s, %v", by, again, err)
		}
	}
}

// TestTalosBytes holds the token to the members, order and encoding of Talos.
func TestTalosBytes(t *testing.T) {
	t.Parallel()
	b64 := func(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
	got, err := talos().Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"talos-tpm2","keyslots":[],"UserData":{"keyslots":[2],` +
		`"sealed_blob_private":"` + b64(append([]byte{0, 158}, blob(1, 158)...)) + `",` +
		`"sealed_blob_public":"` + b64(append([]byte{0, 78}, blob(2, 78)...)) + `",` +
		`"pcrs":[7],"pubkey_pcrs":[11],"alg":"sha256","encryption_version":"1",` +
		`"policy_hash":"` + b64(blob(4, 32)) + `","key_name":"` + b64(append([]byte{0, 34}, blob(3, 34)...)) + `"}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	none := talos()
	none.PCRs = nil
	if got, _ := none.Encode(); strings.Contains(string(got), `"pcrs"`) {
		t.Error("a token without literal PCRs has the member")
	}
}

// TestOldTalos: what tokens from before 1.12 mean.
func TestOldTalos(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(string) string
		pcrs   []int
		old    bool
	}{
		"1.12":                    {func(s string) string { return s }, []int{7}, false},
		"before: pcrs means 7":    {func(s string) string { return strings.Replace(s, `"pcrs":[7],"pubkey_pcrs":[11]`, `"pcrs":[11]`, 1) }, []int{7}, true},
		"before: no literal PCRs": {func(s string) string { return strings.Replace(s, `"pcrs":[7],`, "", 1) }, nil, true},
		"before: other PCRs":      {func(s string) string { return s }, nil, true},
	} {
		raw, err := talos().Encode()
		if err != nil {
			t.Fatal(err)
		}
		text := test.change(string(raw))
		if test.old {
			text = strings.Replace(text, `"encryption_version":"1",`, "", 1)
		}
		got, err := token.ReadTalos(json.RawMessage(text))
		if err != nil || !cmp.Equal(got.PCRs, test.pcrs) || !cmp.Equal(got.Signed, []int{11}) || got.Old != test.old {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestSystemd252 reads what systemd-cryptenroll 252 of Debian wrote, and writes
// the same members again.
func TestSystemd252(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/systemd-252.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := token.ReadSystemd(raw)
	if err != nil {
		t.Fatal(err)
	}
	digest := "8b5682d81b29435d08d79278150611dc7e5923b2fefcce684a09577b40130a8b"
	if got.Slot != 1 || !cmp.Equal(got.PCRs, []int{7}) || got.Bank != "sha256" || got.Alg != "ecc" || got.PIN ||
		hex.EncodeToString(got.Digest) != digest || len(got.Sealed.Private) != 158 || len(got.Sealed.Public) != 78 || got.ParentName != nil {
		t.Errorf("read as %+v", got)
	}
	again, err := got.Encode()
	if err != nil || string(again) != strings.TrimSpace(string(raw)) {
		t.Errorf("written as %s, %v", again, err)
	}
}

// TestRefused: damage and what is not understood is named, never guessed at.
func TestRefused(t *testing.T) {
	t.Parallel()
	encode := func(raw json.RawMessage, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	kinds := map[string]struct {
		text string
		read func(json.RawMessage) error
	}{
		"own":     {encode(own().Encode()), func(r json.RawMessage) error { _, err := token.ReadOwn(r); return err }},
		"talos":   {encode(talos().Encode()), func(r json.RawMessage) error { _, err := token.ReadTalos(r); return err }},
		"systemd": {encode(systemd().Encode()), func(r json.RawMessage) error { _, err := token.ReadSystemd(r); return err }},
	}
	for _, test := range []struct{ kind, old, by, text string }{
		{"own", `"version":1`, `"version":2`, "use a newer one"},
		{"own", `"keyslots":["7"]`, `"keyslots":["7","8"]`, "names 2 keyslots"},
		{"own", `"keyslots":["7"]`, `"keyslots":["32"]`, `keyslot "32"`},
		{"own", `"tcg-ecc"`, `""`, "no template"},
		{"own", `"envelope":"`, `"x":"`, "blob of 0 bytes"},
		{"own", `"pcrs":[11]`, `"pcrs":[]`, "without a key or PCRs"},
		{"own", `"envelope":"`, `"envelope":"` + strings.Repeat("AAAA", 1000), "1 to 2048"},
		{"own", `"pcrs":{"0":`, `"pcrs":{"24":`, "PCR 24"},
		{"own", `"type"`, `"x":"` + strings.Repeat("x", 1<<16) + `","type"`, "more than"},
		{"talos", `"alg":"sha256"`, `"alg":"sha1"`, "sha256 only"},
		{"talos", `"encryption_version":"1"`, `"encryption_version":"2"`, "newer program"},
		{"talos", `"pcrs":[7]`, `"pcrs":[24]`, "PCR 24"},
		{"talos", `"pubkey_pcrs":[11]`, `"pubkey_pcrs":[]`, "0 signed PCRs"},
		{"talos", `"key_name":"`, `"key_name":"AAAA`, "too many"},
		{"systemd", `"tpm2-pin"`, `"tpm2_pcrlock":true,"tpm2-pin"`, "pcrlock"},
		{"systemd", `"tpm2-pin"`, `"tpm2_argon2id_memcost":1,"tpm2-pin"`, "Argon2id"},
		{"systemd", `"tpm2-pin"`, `"tpm2_pubkey_ref":"x","tpm2-pin"`, "reference"},
		{"systemd", `"tpm2-blob":"`, `"tpm2-blob":"!`, "illegal base64"},
		{"systemd", `"sha256"`, `"md5"`, `bank "md5"`},
		{"systemd", `"ecc"`, `"dsa"`, `kind "dsa"`},
		{"systemd", `"tpm2_pubkey_pcrs":[11],`, ``, "no PCRs"},
		{"systemd", `"keyslots":["5"]`, `"keyslots":[]`, "names 0 keyslots"},
	} {
		k := kinds[test.kind]
		text := strings.Replace(k.text, test.old, test.by, 1)
		if text == k.text {
			t.Fatalf("%s has no %s", test.kind, test.old)
		}
		if err := k.read(json.RawMessage(text)); err == nil || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s with %.60s: %v, must say %q", test.kind, test.by, err, test.text)
		}
	}
}

// TestShards: one part may stand in an array, several are refused.
func TestShards(t *testing.T) {
	t.Parallel()
	raw, err := systemd().Encode()
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	b, h := v["tpm2-blob"], v["tpm2-policy-hash"]
	v["tpm2-blob"], v["tpm2-policy-hash"] = []any{b}, []any{h}
	single, _ := json.Marshal(v)
	if got, err := token.ReadSystemd(single); err != nil || cmp.Diff(systemd(), got) != "" {
		t.Errorf("one part in an array: %v", err)
	}
	v["tpm2-blob"] = []any{b, b}
	double, _ := json.Marshal(v)
	if _, err := token.ReadSystemd(double); err == nil || !strings.Contains(err.Error(), "2 sealed parts") {
		t.Errorf("two parts: %v", err)
	}
}

// FuzzRead: whatever is read is written and read again as the same.
func FuzzRead(f *testing.F) {
	for _, raw := range []func() (json.RawMessage, error){own().Encode, recorded().Encode, talos().Encode, systemd().Encode} {
		text, err := raw()
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(text))
	}
	text, err := os.ReadFile("testdata/systemd-252.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, raw []byte) {
		switch token.TypeOf(raw) {
		case token.TypeOwn:
			again(t, raw, token.ReadOwn)
		case token.TypeTalos:
			if got, err := token.ReadTalos(raw); err == nil && !got.Old {
				again(t, raw, token.ReadTalos)
			}
		case token.TypeSystemd:
			if got, err := token.ReadSystemd(raw); err == nil && got.Bank != "" {
				again(t, raw, token.ReadSystemd)
			}
		}
	})
}

func again[T interface {
	Encode() (json.RawMessage, error)
}](t *testing.T, raw json.RawMessage, read func(json.RawMessage) (T, error)) {
	first, err := read(raw)
	if err != nil {
		return
	}
	text, err := first.Encode()
	if err != nil {
		t.Fatalf("read and not written: %v", err)
	}
	second, err := read(text)
	if err != nil {
		t.Fatalf("written and not read: %v", err)
	}
	if a, b := encoded(t, first), encoded(t, second); !bytes.Equal(a, b) {
		t.Fatalf("written as\n%s, then as\n%s", a, b)
	}
}

func encoded(t *testing.T, v interface {
	Encode() (json.RawMessage, error)
},
) []byte {
	text, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
