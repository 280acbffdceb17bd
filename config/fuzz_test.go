package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/config"
)

// seeds returns the fixtures of testdata/read by name.
func seeds(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("testdata/read/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string][]byte)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(path)] = data
	}
	return out
}

// TestSeeds: the seeds of the fuzz target are there, and those called valid
// reach the code behind the parser.
func TestSeeds(t *testing.T) {
	valid, bad, volumes, kinds := 0, 0, 0, make(map[string]bool)
	for name, data := range seeds(t) {
		c, err := config.Read(config.Source{Name: "f", Data: data})
		switch {
		case strings.HasPrefix(name, "valid-"):
			valid++
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			volumes += len(c.Volumes)
			for _, v := range c.Volumes {
				for _, k := range v.Keys {
					kinds[k.Kind()] = true
				}
			}
		case strings.HasPrefix(name, "bad-"):
			bad++
			if err == nil {
				t.Errorf("%s is read without a mistake", name)
				continue
			}
			checkErrors(t, err)
		default:
			t.Errorf("%s is neither valid- nor bad-", name)
		}
	}
	if valid < 5 || bad < 5 || volumes < 8 || len(kinds) != 4 {
		t.Errorf("%d valid seeds, %d bad ones, %d volumes, kinds %v", valid, bad, volumes, kinds)
	}
}

func FuzzRead(f *testing.F) {
	for _, data := range seeds(f) {
		f.Add(data)
	}
	for _, rows := range [][]mistake{blockMistakes, keyMistakes, kindMistakes, documentMistakes, mainMistakes, typeMistakes, yamlMistakes} {
		for _, m := range rows {
			f.Add([]byte(m.text))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return // larger inputs find nothing that smaller ones do not
		}
		source := config.Source{Name: "f", Data: data}
		c, err := config.Read(source)
		again, errAgain := config.Read(source)
		if err != nil {
			if c != nil || errAgain == nil || err.Error() != errAgain.Error() {
				t.Fatalf("reads differ: %v and %v", err, errAgain)
			}
			checkForm(t, err)
			return
		}
		defer c.Wipe()
		defer again.Wipe()
		if d := cmp.Diff(c, again, sameSecret); d != "" {
			t.Fatalf("reads differ:\n%s", d)
		}
		checkConfig(t, c)
	})
}

// checkForm asserts the form of the mistakes, whatever the input.
func checkForm(t *testing.T, err error) {
	t.Helper()
	var all config.Errors
	if !errors.As(err, &all) || len(all) == 0 {
		t.Fatalf("error is a %T", err)
	}
	for _, e := range all {
		if e.File != "f" || e.Problem == "" || e.Fix == "" || strings.ContainsAny(e.Error(), "\n\r\x00\x1b") {
			t.Errorf("malformed: %#v", e)
		}
	}
}

// checkConfig asserts what Read promises of its result.
func checkConfig(t *testing.T, c *config.Config) {
	t.Helper()
	seen := make(map[string]bool)
	for _, v := range c.Volumes {
		if v.Volume == "" || seen[v.Volume] || v.Provider != "luks2" || v.Source.Line < 1 {
			t.Errorf("volume %+v", v)
		}
		seen[v.Volume] = true
		switch {
		case v.KeySize == 256 && v.Cipher != "":
		case v.KeySize == 512 && v.Cipher == "aes-xts-plain64":
		default:
			t.Errorf("cipher %q with %d bits", v.Cipher, v.KeySize)
		}
		if len(v.Keys) < 1 || len(v.Keys) > 32 {
			t.Errorf("%d keys", len(v.Keys))
		}
		last := -1
		for _, k := range v.Keys {
			if k.Slot <= last || k.Slot > 31 {
				t.Errorf("slot %d after %d", k.Slot, last)
			}
			last = k.Slot
			checkKind(t, v.Volume, k)
		}
	}
}

func checkKind(t *testing.T, volume string, k config.Key) {
	t.Helper()
	kinds := 0
	for _, there := range []bool{k.Static != nil, k.NodeID != nil, k.KMS != nil, k.TPM != nil} {
		if there {
			kinds++
		}
	}
	if kinds != 1 || k.Kind() == "" || k.LockToState && volume == "STATE" {
		t.Errorf("key %+v", k)
	}
	if k.Static != nil && k.Static.Passphrase.Len() == 0 {
		t.Error("empty passphrase")
	}
	if k.KMS != nil && !strings.Contains(k.KMS.Endpoint, "://") {
		t.Errorf("endpoint %q", k.KMS.Endpoint)
	}
	if k.TPM != nil {
		for i, n := range k.TPM.PCRs {
			if n < 0 || n > 23 || slices.Contains([]int{11, 16, 23}, n) || i > 0 && n <= k.TPM.PCRs[i-1] {
				t.Errorf("PCRs %v", k.TPM.PCRs)
			}
		}
	}
}

func FuzzReadSalt(f *testing.F) {
	f.Add([]byte(saltFile(countTo(32)...)))
	f.Add([]byte("diskSalt: &a [*a, 1, 0x10, 1.0, ~]\n---\n"))
	path := filepath.Join(f.TempDir(), "encryption-salt.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		salt, err := config.ReadSalt(path)
		if err == nil && (salt.Len() != 32 || strings.Trim(string(salt.Bytes()), "\x00") == "") {
			t.Errorf("salt of %d bytes", salt.Len())
		}
		if err != nil && (salt != nil || err.Error() == "") {
			t.Errorf("salt %v with error %v", salt, err)
		}
		salt.Wipe()
	})
}
