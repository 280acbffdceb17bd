package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/uki"
)

// UKI is a unified kernel image to be made: sections on Debian's systemd-stub.
type UKI struct {
	Kernel    Kernel
	Initramfs string   // a file
	Words     string   // the kernel's command line
	Policy    *uki.Key // signs what the image makes of PCR 11; its public half goes into .pcrpkey
	// Signatures are put into .pcrsig in place of those that Policy makes: what was
	// signed for another image.
	Signatures []byte
	// Unsigned leaves the image without the signature that Secure Boot asks for.
	Unsigned bool
}

// BuiltUKI is a unified kernel image.
type BuiltUKI struct {
	Path       string
	Signatures []byte // in .pcrsig
	PolicyKey  []byte // in .pcrpkey
	// Predicted is PCR 11, SHA-256, after the stub and before any phase.
	Predicted []byte
}

// Build makes the image, and files on the way to it, in a directory.
func (u UKI) Build(dir string) (*BuiltUKI, error) {
	b := &BuiltUKI{Path: filepath.Join(dir, "signed.efi"), Signatures: u.Signatures}
	var err error
	if b.PolicyKey, err = u.Policy.PublicPEM(); err != nil {
		return nil, err
	}
	measured, complete := filepath.Join(dir, "measured.efi"), filepath.Join(dir, "complete.efi")
	if err := u.assemble(dir, measured, b.PolicyKey); err != nil {
		return nil, err
	}
	fresh, err := u.sign(measured, b)
	if err != nil {
		return nil, err
	}
	if b.Signatures == nil {
		b.Signatures = fresh
	}
	// The signatures go in last: they depend on all the others, and the stub does
	// not measure them.
	if err := addSections(dir, measured, complete, section{uki.SectionSignatures, 0x60000, b.Signatures, ""}); err != nil {
		return nil, err
	}
	if u.Unsigned {
		return b, os.Rename(complete, b.Path)
	}
	return b, secureBootSign(dir, complete, b.Path)
}

// assemble makes the image of all sections that are measured.
func (u UKI) assemble(dir, to string, policyKey []byte) error {
	const stub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	release := "ID=cryptctl-test\nVERSION_ID=1\n"
	return addSections(dir, stub, to,
		section{".osrel", 0x20000, []byte(release), ""},
		section{".uname", 0x30000, []byte(u.Kernel.Version), ""},
		section{".cmdline", 0x40000, []byte(u.Words), ""},
		section{uki.SectionPolicyKey, 0x50000, policyKey, ""},
		section{".linux", 0x2000000, nil, u.Kernel.Image},
		section{".initrd", 0x4000000, nil, u.Initramfs},
	)
}

// sign predicts PCR 11 and signs it, for the value that the stub leaves: nothing
// here measures phases.
func (u UKI) sign(image string, b *BuiltUKI) ([]byte, error) {
	opened, err := uki.Open(image)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	sections, err := opened.Sections(0)
	if err != nil {
		return nil, err
	}
	p, err := sections.Predict(uki.Options{Stub: opened.Stub, Paths: []pcr.Path{{}}})
	if err != nil {
		return nil, err
	}
	b.Predicted = p.Values[0].Value
	signatures, err := u.Policy.Sign(p)
	if err != nil {
		return nil, err
	}
	return signatures.Encode()
}

// section is a section to be added: at an address, with a content or a file's.
type section struct {
	name    string
	address int
	content []byte
	file    string
}

func addSections(dir, from, to string, sections ...section) error {
	argv := []string{"objcopy"}
	for _, s := range sections {
		if s.file == "" {
			s.file = filepath.Join(dir, "section"+s.name)
			if err := os.WriteFile(s.file, s.content, 0o600); err != nil {
				return err
			}
		}
		argv = append(argv, "--add-section", s.name+"="+s.file, "--change-section-vma", fmt.Sprintf("%s=%#x", s.name, s.address))
	}
	return runTool("", append(argv, from, to)...)
}

// The key that Debian's package ovmf enrolls in its variables for tests. Its
// private half, and the passphrase of it, are public.
const (
	signingKey  = "/usr/share/ovmf/PkKek-1-snakeoil.key"
	signingCert = "/usr/share/ovmf/PkKek-1-snakeoil.pem"
	signingWord = "snakeoil"
)

// secureBootSign signs an image as the firmware wants it.
func secureBootSign(dir, from, to string) error {
	key := filepath.Join(dir, "signing.key")
	return errors.Join(
		runTool(signingWord+"\n", "openssl", "pkey", "-in", signingKey, "-passin", "stdin", "-out", key),
		runTool("", "sbsign", "--key", key, "--cert", signingCert, "--output", to, from),
	)
}
