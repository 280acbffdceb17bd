package interop_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
)

// TestPassphrases uses bytes that a tool could trim, cut or convert.
func TestPassphrases(t *testing.T) {
	for name, pass := range map[string]string{
		"one byte":         "x",
		"a newline":        "\n",
		"ends in newlines": "word\n\n",
		"newline inside":   "first\nsecond",
		"NUL inside":       "first\x00second",
		"ends in NUL":      "word\x00",
		"not UTF-8":        "\xff\xfe\x80",
		"256 random bits":  "\x0a\x00\x9f\x17\xe3" + strings.Repeat("\xc5\x3a\x0d", 9),
		"longer than hash": strings.Repeat("0123456789abcdef", 40),
		"64 KiB":           strings.Repeat("k", 64<<10),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := ours(t, plain(), pass)
			d.addThere(1, pass)
			d.killThere(0)
			d.opens("the slot they made")
			for _, near := range []string{pass + "\n", pass + "\x00", strings.TrimSuffix(pass, "\n") + "!"} {
				if d.opensHere(near, 1) || d.opensThere(near, 1) {
					t.Errorf("%q opens it too", near)
				}
			}
		})
	}
}

// TestVariants opens and changes volumes that cryptsetup made in less usual
// ways.
func TestVariants(t *testing.T) {
	for name, flags := range map[string][]string{
		"sha512 digest and splitter": {"--hash", "sha512"},
		"sha1 digest and splitter":   {"--hash", "sha1"},
		"sha384 digest and splitter": {"--hash", "sha384"},
		"sha3 digest and splitter":   {"--hash", "sha3-256"},
		"blake2 digest and splitter": {"--hash", "blake2b-512"},
		"other keyslot key size":     {"--keyslot-cipher", "aes-xts-plain64", "--keyslot-key-size", "256"},
		"small keyslots area":        {"--luks2-keyslots-size", "1m"},
		"data at 64 MiB":             {"--offset", "131072"},
		"sector size 1024":           {"--sector-size", "1024"},
		"sector size 2048":           {"--sector-size", "2048"},
		"first key in slot 31":       {"--key-slot", "31"},
		"two lanes":                  {"--pbkdf-parallel", "2", "--pbkdf-memory", "1024", "--pbkdf-force-iterations", "5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			slot := 0
			d := blank(t, plain(), 80<<20)
			args := []string{"luksFormat", "--type", "luks2", "--key-file", keyFile(t, "alpha")}
			cryptsetup(t, append(append(append(args, plain().costFlags()...), flags...), d.path)...)
			if name == "first key in slot 31" {
				slot = 31
			}
			d.keys[slot] = "alpha"
			d.key = d.keyHere("alpha", slot)
			d.accepted("cryptsetup formatted")
			d.sameKey("cryptsetup formatted", slot)
			d.addHere(1, "bravo")
			d.addThere(2, "charlie")
			d.replaceHere(slot, "delta")
			d.opens("at the end")
		})
	}
}

// TestForeignCiphers: what we do not open is named, not guessed at, and is not
// changed either.
func TestForeignCiphers(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags []string
		code  luks.Code
	}{
		{"cbc in the segment", []string{"--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"}, luks.SegmentCipher},
		{"cbc in the keyslot", []string{"--keyslot-cipher", "aes-cbc-essiv:sha256", "--keyslot-key-size", "256"}, luks.KeyslotCipher},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := blank(t, plain(), diskSize)
			args := []string{"luksFormat", "--type", "luks2", "--key-file", keyFile(t, "alpha")}
			cryptsetup(t, append(append(append(args, plain().costFlags()...), c.flags...), d.path)...)
			d.sameDocument("cryptsetup formatted")
			if _, err := d.unlock("alpha", -1); !errors.Is(err, c.code) {
				t.Errorf("we unlock it with %v, want %s", err, c.code)
			}
		})
	}
}

// TestUnbound: a keyslot that holds another key than the volume's is left alone
// and never taken for one.
func TestUnbound(t *testing.T) {
	for _, bits := range []int{128, 512} {
		t.Run(strconv.Itoa(bits), func(t *testing.T) {
			d := ours(t, plain(), "alpha")
			args := append([]string{"luksAddKey", "--unbound", "--key-size", strconv.Itoa(bits), "--key-slot", "3"}, d.shape.costFlags()...)
			cryptsetup(t, append(args, d.path, keyFile(t, "unbound"))...)
			unbound := func(what string) {
				t.Helper()
				d.sameDocument(what)
				refusals := d.header().Trust(kdf.Limits{})
				if len(refusals) != 1 || refusals[0].Code != luks.KeyslotUnbound || refusals[0].Slot != 3 || refusals[0].Level != luks.SlotOnly {
					t.Fatalf("%s: refusals %v, want %s for slot 3", what, refusals, luks.KeyslotUnbound)
				}
				if d.opensHere("unbound", -1) {
					t.Errorf("%s: its passphrase unlocks the volume", what)
				}
				if !d.opensThere("unbound", 3, "--unbound") {
					t.Errorf("%s: cryptsetup cannot open it any more", what)
				}
			}
			unbound("cryptsetup added it")
			d.commit(luks.ReplaceKeyslot(0, d.sealNew("bravo"), nil))
			d.keys[0] = "bravo"
			unbound("we changed the other slot")
			if _, err := d.header().Commit(luks.RemoveKeyslot(0)); !errors.Is(err, luks.ErrLastKeyslot) {
				t.Errorf("removing the last slot that opens the data: %v", err)
			}
			d.removeHere(3)
			d.opens("without it")
		})
	}
}

// TestConvertKey: cryptsetup moves a keyslot of ours to another derivation.
func TestConvertKey(t *testing.T) {
	d := ours(t, plain(), "alpha")
	cryptsetup(t, "luksConvertKey", "--key-slot", "0", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", keyFile(t, "alpha"), d.path)
	d.accepted("cryptsetup converted the keyslot")
	if k, _ := d.header().Keyslot(0); k.KDF.Kind != kdf.PBKDF2 {
		t.Errorf("the derivation is %s", k.KDF.Kind)
	}
	d.opens("converted")
	d.replaceHere(0, "bravo")
}
