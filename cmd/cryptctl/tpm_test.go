package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
	"github.com/cryptctl/cryptctl/tpm/uki"
)

// scriptTPM is the TPM of a script.
type scriptTPM struct{ machine *tpmtest.Machine }

// startTPM is the script command that starts a software TPM of its own, as other
// programs find it.
func startTPM(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 1, 1, "swtpm VAR")
		m := tpmtest.StartShared(t)
		ts.Setenv(args[0], "swtpm:"+m.Release())
		ts.Value("tpm").(*scriptTPM).machine = m
	}
}

func machineOf(ts *testscript.TestScript) *tpmtest.Machine {
	m := ts.Value("tpm").(*scriptTPM).machine
	if m == nil {
		ts.Fatalf("start a TPM first: swtpm VAR")
	}
	return m
}

func extendTPM(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 2, 2, "extend PCR TEXT")
		index, err := strconv.Atoi(args[0])
		ts.Check(err)
		tpmtest.Extend(t, machineOf(ts), index, args[1])
	}
}

func restartTPM(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 0, 0, "restart")
	machineOf(ts).Restart()
}

func clearTPM(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 0, 0, "cleartpm")
		tpmtest.Clear(t, machineOf(ts))
	}
}

func rsaKey(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, 2, "rsakey PRIVATE PUBLIC")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	ts.Check(err)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	ts.Check(err)
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), private, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o644))
}

// makeUKI writes an EFI application with sections, by the PE specification:
//
//	0x00 "MZ", at 0x3c the offset of the rest   0x40 "PE\0\0", COFF header of 20 bytes,
//	optional header of 112 bytes, section headers of 40 bytes, then data aligned to 512 bytes
func makeUKI(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, 99, "uki FILE STUB NAME=FILE...")
	names, contents := []string{}, []string{}
	if args[1] != "none" {
		names, contents = []string{".sdmagic"}, []string{"#### LoaderInfo: systemd-stub " + args[1] + " ####\x00"}
	}
	for _, a := range args[2:] {
		name, file, _ := strings.Cut(a, "=")
		names, contents = append(names, name), append(contents, ts.ReadFile(file))
	}
	le := binary.LittleEndian
	image := make([]byte, 0x40)
	copy(image, "MZ")
	image[0x3c] = 0x40
	image = append(image, "PE\x00\x00\x64\x86"...)
	image = le.AppendUint16(image, uint16(len(names)))
	image = append(image, make([]byte, 12)...)
	image = append(image, 112, 0, 0x22, 0)
	optional := make([]byte, 112)
	le.PutUint16(optional, 0x20b)
	le.PutUint16(optional[68:], 10) // EFI application
	image = append(image, optional...)
	at, address := (len(image)+40*len(names)+511)&^511, uint32(0x1000)
	var data []byte
	for i, name := range names {
		stored := (len(contents[i]) + 511) &^ 511
		head := make([]byte, 40)
		copy(head[:8], name)
		for j, v := range []uint32{uint32(len(contents[i])), address, uint32(stored), uint32(at + len(data))} {
			le.PutUint32(head[8+4*j:], v)
		}
		image = append(image, head...)
		data = append(append(data, contents[i]...), make([]byte, stored-len(contents[i]))...)
		address += (uint32(stored) + 0xfff) &^ 0xfff
	}
	image = append(append(image, make([]byte, at-len(image))...), data...)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), image, 0o644))
}

// bootUKI has the TPM do what the stub and the initrd do with an image: name and
// content of each section, then the words.
func bootUKI(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 2, 2, "bootuki FILE PHASES")
		u, err := uki.Open(ts.MkAbs(args[0]))
		ts.Check(err)
		defer u.Close()
		sections, err := u.Sections(0)
		ts.Check(err)
		p, err := sections.Predict(uki.Options{Stub: u.Stub})
		ts.Check(err)
		for _, s := range p.Measured {
			tpmtest.Extend(t, machineOf(ts), uki.PCR, s.Name+"\x00")
			_, err := tpm2.PCRExtend{
				PCRHandle: tpm2.AuthHandle{Handle: uki.PCR, Auth: tpm2.PasswordAuth(nil)},
				Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: s.Digests[pcr.SHA256]}}},
			}.Execute(machineOf(ts))
			ts.Check(err)
		}
		for word := range strings.SplitSeq(args[1], ":") {
			tpmtest.Extend(t, machineOf(ts), uki.PCR, word)
		}
	}
}

// measureTPM is the script command that does what firmware does: the TPM measures
// a text, and the event goes to a log.
func measureTPM(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 4, 4, "measure LOG PCR TYPE TEXT")
		index, err := strconv.ParseUint(args[1], 10, 8)
		ts.Check(err)
		kind, err := strconv.ParseUint(args[2], 0, 32)
		ts.Check(err)
		text, err := strconv.Unquote(`"` + args[3] + `"`)
		ts.Check(err)
		log, err := os.ReadFile(ts.MkAbs(args[0]))
		if !errors.Is(err, fs.ErrNotExist) {
			ts.Check(err)
		}
		log = tpmtest.Measure(t, machineOf(ts), log, int(index), uint32(kind), text)
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), log, 0o644))
	}
}
