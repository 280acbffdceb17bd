package config_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/secret"
)

// saltFile is the file as Talos writes it, for the given numbers.
func saltFile(numbers ...string) string {
	return "diskSalt:\n    - " + strings.Join(numbers, "\n    - ") + "\n"
}

// countTo returns the numbers from 1 to n as text.
func countTo(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = strconv.Itoa(i + 1)
	}
	return out
}

// TestFormatSalt: what is written is what Talos writes, and is read again.
func TestFormatSalt(t *testing.T) {
	t.Parallel()
	salt := secret.New(32)
	for i := range salt.Bytes() {
		salt.Bytes()[i] = byte(8*i + 7)
	}
	text := config.FormatSalt(salt)
	var numbers []string
	for _, b := range salt.Bytes() {
		numbers = append(numbers, strconv.Itoa(int(b)))
	}
	if got := string(text.Bytes()); got != saltFile(numbers...) {
		t.Errorf("the file is\n%s", got)
	}
	path := filepath.Join(t.TempDir(), "salt.yaml")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := config.ReadSalt(path); err != nil || !got.Equal(salt) {
		t.Errorf("read again: %v", err)
	}
}

// TestIsVolume: names that a configuration can have.
func TestIsVolume(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"STATE": true, "EPHEMERAL": true, "LOG": true, "u-data": true, "r-1": true, "s-swap": true, "u-" + strings.Repeat("a", 34): true,
		"": false, "META": false, "EFI": false, "state": false, "u-": false, "x-data": false, "u-a/b": false, "u-" + strings.Repeat("a", 35): false,
	} {
		if got := config.IsVolume(name); got != want {
			t.Errorf("IsVolume(%q) is %v", name, got)
		}
	}
}

func TestReadSalt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "encryption-salt.yaml")
	want := make([]byte, 32)
	for i := range want {
		want[i] = byte(i + 1)
	}
	want[31] = 255
	numbers := append(countTo(31), "255")
	for name, text := range map[string]string{
		"as Talos writes it": saltFile(numbers...),
		"on one line":        "diskSalt: [" + strings.Join(numbers, ",") + "]",
		"with other fields":  "future: 1\n" + saltFile(numbers...),
		"with a start mark":  "---\n" + saltFile(numbers...),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			salt, err := config.ReadSalt(path)
			if err != nil {
				t.Fatal(err)
			}
			defer salt.Wipe()
			if !bytes.Equal(salt.Bytes(), want) {
				t.Error("another salt")
			}
		})
	}
}

func TestReadSaltMistakes(t *testing.T) {
	const restore = "restore the file; with another salt, locked volumes stay closed"
	with := func(n int, number string) string {
		numbers := countTo(32)
		numbers[n] = number
		return saltFile(numbers...)
	}
	zeros := strings.Split(strings.Repeat("0 ", 32), " ")[:32]
	tests := []struct {
		name string
		text string
		want string // after the path
	}{
		{"empty", "", ": holds 0 documents, not one with diskSalt; " + restore},
		{"two documents", saltFile(countTo(32)...) + "---\na: 1\n", ": holds 2 documents, not one with diskSalt; " + restore},
		{"absent", "salt: 1\n", ":1: diskSalt: has 0 numbers, not 32; " + restore},
		{"null", "a: 1\ndiskSalt:\n", ":2: diskSalt: has 0 numbers, not 32; " + restore},
		{"short", saltFile(countTo(31)...), ":1: diskSalt: has 31 numbers, not 32; " + restore},
		{"long", saltFile(countTo(33)...), ":34: diskSalt: has 33 entries; keep at most 32: the salt has no more bytes"},
		{"zeros", saltFile(zeros...), ":1: diskSalt: is all zeros, which is no salt; " + restore},
		{"above 255", with(4, "256"), ":6: diskSalt[4]: is not a number from 0 to 255; " + restore},
		{"negative", with(31, "-1"), ":33: diskSalt[31]: is not a number from 0 to 255; " + restore},
		{"hole", with(0, ""), ":2: diskSalt[0]: is not a number from 0 to 255; " + restore},
		{"text", with(0, "x"), ":2: diskSalt[0]: is text, not a whole number; write a number without quotes"},
		{"base64", "diskSalt: AQID\n", ":1: diskSalt: is text, not a list; write it as [entry, entry] or as lines that start with -\n:1: diskSalt: has 0 numbers, not 32; " + restore},
		{"twice", saltFile(countTo(32)...) + saltFile(countTo(32)...), ":34: diskSalt: the field is there twice, first on line 1; keep one of them"},
		{"list", "- 1\n", ":1: is a list, not a mapping; write it as field: value"},
		{"syntax", "diskSalt: [", ":2: did not find expected node content; mend the YAML on this line or the one above"},
		{"too large", strings.Repeat("#", 65<<10), ": is larger than 64 KiB; check that this is the right file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "encryption-salt.yaml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			salt, err := config.ReadSalt(path)
			if salt != nil || err == nil {
				t.Fatalf("ReadSalt gives %v, %v", salt, err)
			}
			if got := strings.ReplaceAll(err.Error(), path, ""); got != tt.want {
				t.Errorf("error %s\nwant  %s", got, tt.want)
			}
			checkErrors(t, err)
		})
	}
	path := filepath.Join(t.TempDir(), "no")
	if _, err := config.ReadSalt(path); err == nil || err.Error() != path+": no such file; check the path" {
		t.Errorf("missing file gives %v", err)
	}
}
