package main

import (
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// luks1In makes an image with the LUKS1 volume of luks1/testdata/README, whose
// slot 3 opens with "sesame one".
func luks1In(t *testing.T) (dir, image string) {
	t.Helper()
	header, err := os.ReadFile("../../luks1/testdata/header.bin")
	if err != nil {
		t.Fatal(err)
	}
	volume := make([]byte, 3<<20)
	copy(volume, header)
	for i := range 4000 {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte("material"), uint32(i)))
		copy(volume[397312+32*i:], sum[:])
	}
	dir = t.TempDir()
	image = filepath.Join(dir, "old.img")
	write(t, image, string(volume))
	write(t, filepath.Join(dir, "one.key"), "sesame one")
	write(t, filepath.Join(dir, "two.key"), "sesame two")
	return dir, image
}

// TestLUKS1: the older format is shown and opened, and changed by no command.
func TestLUKS1(t *testing.T) {
	t.Parallel()
	dir, image := luks1In(t)
	same := unchanged(t, image)
	defer same()
	const shown = `old.img: LUKS1 volume 11111111-2222-3333-4444-555555555555
aes-xts-plain64 with a key of 32 bytes, hash sha256; the data begins at byte 2097152
it can be opened and is never changed here

SLOT  OFFSET  SIZE     KEY DERIVATION
3     397312  125 KiB  pbkdf2-sha256, 1000 iterations
`
	out, _ := cryptctl(t, dir, 0, "inspect", "old.img")
	if diff := cmp.Diff(shown, out); diff != "" {
		t.Errorf("inspect (-want, +got):\n%s", diff)
	}
	for _, c := range []struct {
		code int
		args string
		says string // in what it prints
	}{
		{0, "inspect old.img --json", `"format": "LUKS1"`},
		{0, "open old.img --test --key-file one.key", "slot 3 opens volume 11111111-2222-3333-4444-555555555555\n"},
		{0, "open old.img --test --key-file one.key --slot 3 --json", `"slot": 3`},
		{5, "open old.img --test --key-file two.key", "no keyslot opens with this passphrase (tried 3)"},
		{5, "open old.img --test --key-file one.key --slot 2", "slot 2 is not in use"},
		{2, "open old.img data --key-file one.key", "losetup --find --show old.img"},
		{1, "key list old.img", "is never changed here"},
		{1, "key add old.img --key-file one.key --new-key-file two.key", "is never changed here"},
		{1, "key remove old.img --slot 3 --key-file one.key", "is never changed here"},
		{1, "key replace old.img --slot 3 --key-file one.key --new-key-file two.key", "is never changed here"},
		{1, "erase old.img --yes", "is never changed here"},
		{1, "header repair old.img", "is never changed here"},
		{1, "token remove old.img --token 0", "is never changed here"},
		{6, "format old.img --key-file one.key --pbkdf pbkdf2", "a LUKS1 header at byte 0; nothing was written"},
	} {
		t.Run(c.args, func(t *testing.T) {
			out, problem := cryptctl(t, dir, c.code, strings.Fields(c.args)...)
			if !strings.Contains(out+problem, c.says) {
				t.Errorf("it says %s%s, want: %s", out, problem, c.says)
			}
		})
	}
}

// TestLUKS1Refused: what is not used is named.
func TestLUKS1Refused(t *testing.T) {
	t.Parallel()
	dir, image := luks1In(t)
	if err := overwrite(image, 40, []byte("cbc-essiv:sha256\x00")); err != nil {
		t.Fatal(err)
	}
	out, _ := cryptctl(t, dir, 0, "inspect", "old.img")
	const refusal = `cipher-name: cipher "aes-cbc-essiv:sha256" of a LUKS1 volume is not opened here, only aes-xts-plain64; cryptsetup opens it (segment-cipher)`
	if !strings.Contains(out, "not used: "+refusal+"\n") {
		t.Errorf("inspect prints\n%s", out)
	}
	if _, problem := cryptctl(t, dir, 1, "open", "old.img", "--test", "--key-file", "one.key"); !strings.Contains(problem, "the header is refused: "+refusal) {
		t.Errorf("open says %s", problem)
	}
	if err := overwrite(image, 208+3*48+40, []byte{0, 0, 0, 1}); err != nil {
		t.Fatal(err)
	}
	if _, problem := cryptctl(t, dir, 1, "inspect", "old.img"); !strings.Contains(problem, "slot 3: its key material at byte 512 lies in the header") {
		t.Errorf("inspect says %s", problem)
	}
}
