package eventlog_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// golden is a log of a virtual machine with OVMF and swtpm that booted a
// unified kernel image (systemd-stub 252), as Linux showed it:
//
//	ovmf-secureboot   Secure Boot on, with the keys of Debian's OVMF_VARS_4M.snakeoil.fd
//	ovmf-insecure     Secure Boot off, the image unsigned and its command line with a word more
//
// The .pcrs files have the values that the TPM had then: bank, PCR, digits.
func golden(t testing.TB, name string) (*eventlog.Log, map[pcr.Bank]map[int][]byte) {
	t.Helper()
	l, err := eventlog.Read(filepath.Join("testdata", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("testdata", name+".pcrs"))
	if err != nil {
		t.Fatal(err)
	}
	values := map[pcr.Bank]map[int][]byte{}
	for line := range strings.Lines(string(text)) {
		var bank, digits string
		var index int
		if _, err := fmt.Sscan(line, &bank, &index, &digits); err != nil {
			t.Fatal(err)
		}
		b, err := pcr.BankByName(bank)
		if err != nil {
			t.Fatal(err)
		}
		if values[b] == nil {
			values[b] = map[int][]byte{}
		}
		if values[b][index], err = hex.DecodeString(digits); err != nil {
			t.Fatal(err)
		}
	}
	return l, values
}

// TestGolden: in all four banks the log gives the values that the TPM had, but
// for PCR 10, which IMA extended.
func TestGolden(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ovmf-secureboot", "ovmf-insecure"} {
		l, banks := golden(t, name)
		if len(banks) != 4 || len(l.Banks()) != 4 {
			t.Fatalf("%s has values of %d banks, digests of %d", name, len(banks), len(l.Banks()))
		}
		for bank, values := range banks {
			if len(values) != 16 {
				t.Fatalf("%s has %d values of %s", name, len(values), bank)
			}
			verdicts, err := l.Compare(bank, values)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range verdicts {
				want := eventlog.Agrees
				if v.PCR == 10 {
					want = eventlog.Unlogged
				}
				if v.Agreement != want {
					t.Errorf("%s: %s", name, v.String())
				}
			}
			values[4][3] ^= 1
			verdicts, err = l.Compare(bank, values)
			if err != nil || verdicts[4].Agreement != eventlog.Deviates || verdicts[4].PCR != 4 {
				t.Errorf("%s, a bit of PCR 4 changed: %s, %v", name, verdicts[4].String(), err)
			}
		}
	}
}

// TestGoldenWords: every event of a real log in words.
func TestGoldenWords(t *testing.T) {
	t.Parallel()
	l, _ := golden(t, "ovmf-secureboot")
	var got strings.Builder
	for i := range l.Events {
		fmt.Fprintln(&got, l.Events[i].String())
	}
	matches(t, "testdata/ovmf-secureboot.txt", got.String())
}

// matches holds a text against a file. With CRYPTCTL_UPDATE in the environment
// the file is written instead, to be read by a person.
func matches(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("CRYPTCTL_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Error(d)
	}
}

// TestGoldenExplain: what is different between the two machines, and nothing
// else.
func TestGoldenExplain(t *testing.T) {
	t.Parallel()
	secure, values := golden(t, "ovmf-secureboot")
	before, err := secure.Record(pcr.SHA256, values[pcr.SHA256])
	if err != nil {
		t.Fatal(err)
	}
	insecure, values := golden(t, "ovmf-insecure")
	after, err := insecure.Record(pcr.SHA256, values[pcr.SHA256])
	if err != nil {
		t.Fatal(err)
	}
	movements, err := eventlog.Explain(before, after)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, m := range movements {
		fmt.Fprintln(&got, m)
	}
	matches(t, "testdata/explained.txt", got.String())
}
