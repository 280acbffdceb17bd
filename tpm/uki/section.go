package uki

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cryptctl/cryptctl/tpm/pcrsig"
)

// SectionNames are the sections that systemd-stub knows, in the order in which
// it measures them. SectionSignatures is among them and never measured.
func SectionNames() []string {
	return []string{
		".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", SectionSignatures,
		SectionPolicyKey, sectionProfile, ".dtbauto", ".hwids", ".efifw",
	}
}

// Sections that this package does more with than measuring.
const (
	SectionSignatures = ".pcrsig"
	SectionPolicyKey  = ".pcrpkey"
	sectionProfile    = ".profile"
	sectionMagic      = ".sdmagic"
)

// byMachine says whether an image may have several sections of a name, of which
// the stub takes the one that fits the machine.
func byMachine(name string) bool { return name == ".dtbauto" || name == ".efifw" }

// Section is one section of an image, or a file with what will be one.
type Section struct {
	Name string
	// Size is how many bytes it has in memory, which are those that are measured.
	Size int64

	stored int64 // how many bytes open gives; zeros follow up to Size
	open   func() (io.ReadCloser, error)
}

// FileSection makes a section of a file's content, as it will be put into an
// image. The file is read when it is needed.
func FileSection(name, path string) (Section, error) {
	if !slices.Contains(SectionNames(), name) {
		return Section{}, fmt.Errorf("%s is not the name of a section: they are %s", name, strings.Join(SectionNames(), " "))
	}
	info, err := os.Stat(path)
	if err != nil {
		return Section{}, fmt.Errorf("section %s: %w", name, err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxSection {
		return Section{}, fmt.Errorf("section %s: %s is not a file of at most %d bytes", name, path, int64(maxSection))
	}
	return Section{name, info.Size(), info.Size(), func() (io.ReadCloser, error) { return os.Open(path) }}, nil
}

// writeTo writes the section as it is in memory.
func (s *Section) writeTo(w io.Writer) error {
	r, err := s.open()
	if err != nil {
		return fmt.Errorf("section %s: %w", s.Name, err)
	}
	defer r.Close()
	_, err = io.CopyN(w, r, s.stored)
	if errors.Is(err, io.EOF) {
		err = errors.New("the file became shorter while it was read")
	}
	if err == nil {
		_, err = io.CopyN(w, zeros{}, s.Size-s.stored)
	}
	if err != nil {
		return fmt.Errorf("section %s: %w", s.Name, err)
	}
	return nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// bytes returns a small section, without the zeros at its end.
func (s *Section) bytes(limit int64) ([]byte, error) {
	if s.Size > limit {
		return nil, fmt.Errorf("section %s has %d bytes, more than %d", s.Name, s.Size, limit)
	}
	var b strings.Builder
	if err := s.writeTo(&b); err != nil {
		return nil, err
	}
	return []byte(strings.TrimRight(b.String(), "\x00")), nil
}

// Sections are what the stub finds, each name once but for those of which it
// takes one that fits the machine.
type Sections []Section

// ErrNoSection says that an image does not have a section.
var ErrNoSection = errors.New("the image does not have this section")

// get returns a section that is there and not empty.
func (s Sections) get(name string) (*Section, error) {
	for i := range s {
		if s[i].Name == name && s[i].Size > 0 {
			return &s[i], nil
		}
	}
	return nil, fmt.Errorf("%s: %w", name, ErrNoSection)
}

// PolicyKey returns the public key in .pcrpkey, ErrNoSection if there is none.
func (s Sections) PolicyKey() (*rsa.PublicKey, error) {
	section, err := s.get(SectionPolicyKey)
	if err != nil {
		return nil, err
	}
	text, err := section.bytes(maxKeyFile)
	if err != nil {
		return nil, err
	}
	key, err := pcrsig.ParsePublicKey(text)
	if err != nil {
		return nil, fmt.Errorf("section %s: %w", SectionPolicyKey, err)
	}
	return key, nil
}

// Signatures returns what is in .pcrsig, ErrNoSection if there is none.
func (s Sections) Signatures() (pcrsig.Signatures, error) {
	section, err := s.get(SectionSignatures)
	if err != nil {
		return nil, err
	}
	text, err := section.bytes(pcrsig.MaxSize)
	if err != nil {
		return nil, err
	}
	signatures, err := pcrsig.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("section %s: %w", SectionSignatures, err)
	}
	return signatures, nil
}
