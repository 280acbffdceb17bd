package pcr_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/tpm/pcr"
)

func TestBanks(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64} {
		b, err := pcr.BankByName(name)
		if err != nil || b.String() != name || b.Size() != size || !b.Known() || len(b.Sum(nil)) != size {
			t.Errorf("%s: %s, %d bytes, %v", name, b, b.Size(), err)
		}
		if got := b.Initial(7); !bytes.Equal(got, make([]byte, size)) {
			t.Errorf("PCR 7 of %s begins with %x", b, got)
		}
		for index, want := range map[int]byte{0: 0, 16: 0, 17: 0xff, 22: 0xff, 23: 0} {
			if got := b.Initial(index)[size-1]; got != want {
				t.Errorf("PCR %d of %s begins with %x", index, b, got)
			}
		}
	}
	sm3 := pcr.Bank(0x12)
	if sm3.Known() || sm3.Size() != 0 || sm3.String() != "algorithm 0x0012" {
		t.Errorf("SM3 is %s", sm3)
	}
	if _, err := pcr.BankByName("md5"); err == nil || !strings.Contains(err.Error(), "sha1, sha256, sha384 and sha512") {
		t.Error(err)
	}
}

// TestExtend: the value that every PCR has after a separator only, known from
// event logs everywhere.
func TestExtend(t *testing.T) {
	t.Parallel()
	for bank, want := range map[pcr.Bank]string{
		pcr.SHA1:   "b2a83b0ebf2f8374299a5b2bdfc31ea955ad7236",
		pcr.SHA256: "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969",
	} {
		if got := hex.EncodeToString(bank.Extend(bank.Initial(6), bank.Sum(make([]byte, 4)))); got != want {
			t.Errorf("%s: %s", bank, got)
		}
	}
}

func TestParsePath(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]pcr.Path{
		"":                                nil,
		"enter-initrd":                    {"enter-initrd"},
		"enter-initrd:leave-initrd:ready": {"enter-initrd", "leave-initrd", "ready"},
	} {
		got, err := pcr.ParsePath(text)
		if err != nil || !cmp.Equal(got, want) || got.String() != text {
			t.Errorf("%q is %q, %v", text, got, err)
		}
	}
	for _, text := range []string{":", "a:", ":a", "a::b", "a b", "a\n", "a\x00"} {
		if got, err := pcr.ParsePath(text); err == nil {
			t.Errorf("%q is %q", text, got)
		}
	}
	if got := pcr.SystemdPaths(); len(got) != 4 || got[3].String() != "enter-initrd:leave-initrd:sysinit:ready" {
		t.Errorf("systemd's paths are %s", got)
	}
	if got := pcr.TalosPath().String(); got != "enter-initrd:leave-initrd:enter-machined" {
		t.Errorf("Talos' path is %s", got)
	}
}

func TestFindPath(t *testing.T) {
	t.Parallel()
	from := pcr.SHA256.Sum([]byte("sections"))
	for _, text := range []string{"", "enter-initrd", "enter-initrd:leave-initrd:sysinit:ready:shutdown:final", "enter-initrd:leave-initrd:enter-machined:start-the-world"} {
		path, err := pcr.ParsePath(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := pcr.SHA256.FindPath(from, pcr.SHA256.ExtendWords(from, path...)); !ok || got.String() != text {
			t.Errorf("%s was found as %s, %v", text, got, ok)
		}
	}
	for _, words := range [][]string{{"leave-initrd"}, {"enter-initrd", "enter-initrd"}, {"enter-initrd\x00"}} {
		if got, ok := pcr.SHA256.FindPath(from, pcr.SHA256.ExtendWords(from, words...)); ok {
			t.Errorf("%q was found as %s", words, got)
		}
	}
}

// TestPolicy: PCR 11 and the policy that systemd-measure 252 gave for it, by a
// TPM (package uki has the files), and what is refused.
func TestPolicy(t *testing.T) {
	t.Parallel()
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	tests := []struct {
		bank          pcr.Bank
		value, policy string
	}{
		{pcr.SHA256, "7b6534771f02295da9da1a8b431ae1c8f3829fb48cf8e324553d58bbca3f21e6", "b3f0f211e0c2672d38da53f8db4335cf8b04975e6817917ceb41830b7aea0319"},
		{pcr.SHA384, "e8238b9c118dfcd011b0ecd05d56e2ff7e207572284a96559e18aef288884dd0f50a0ca3f5e3fef11266a37a12578e58", "5522bdd1f05e41ce3d4fb2bc4e018692d4adff5e0f304ed3d01a89f25383af84"},
	}
	for _, test := range tests {
		got, err := pcr.Policy(test.bank, map[int][]byte{11: unhex(test.value)})
		if err != nil || hex.EncodeToString(got) != test.policy {
			t.Errorf("%s: %x, %v", test.bank, got, err)
		}
	}
	// Several PCRs: one selection, and the values in the order of their numbers.
	values, inOrder := map[int][]byte{}, []byte(nil)
	for _, index := range []int{0, 2, 4, 7, 9, 11, 14, 23} {
		values[index] = pcr.SHA256.Sum([]byte{byte(index)})
		inOrder = append(inOrder, values[index]...)
	}
	command := append(make([]byte, 32), 0, 0, 1, 0x7f, 0, 0, 0, 1, 0, 0xb, 3, 0b10010101, 0b01001010, 0b10000000)
	want := pcr.SHA256.Sum(append(command, pcr.SHA256.Sum(inOrder)...))
	for range 20 { // a map has another order each time
		if got, err := pcr.Policy(pcr.SHA256, values); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%x, %v, want %x", got, err, want)
		}
	}
	zeros := make([]byte, 32)
	refused := []struct {
		bank   pcr.Bank
		values map[int][]byte
		want   string
	}{
		{pcr.SHA256, nil, "no PCR"},
		{pcr.SHA256, map[int][]byte{24: zeros}, "PCR 24"},
		{pcr.SHA256, map[int][]byte{-1: zeros}, "PCR -1"},
		{pcr.SHA256, map[int][]byte{1: zeros[1:]}, "31 bytes"},
		{0x12, map[int][]byte{1: zeros}, "not known"},
	}
	for _, test := range refused {
		if got, err := pcr.Policy(test.bank, test.values); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%x, %v, want %s", got, err, test.want)
		}
	}
}
