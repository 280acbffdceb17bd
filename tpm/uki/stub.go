package uki

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// Stub is a version of systemd-stub, by its first number: 252 is the first that
// measures into PCR 11. The zero value is "not known".
type Stub int

// oldest is the first version that measures sections into PCR 11.
const oldest Stub = 252

// since returns the first version that measures a section, 0 if none does. (The
// list of sections in src/fundamental of systemd's versions.)
//
//	252, 253   .linux .osrel .cmdline .initrd .splash .dtb .pcrpkey
//	254        .uname .sbat
//	256        .ucode
//	257        .profile .dtbauto .hwids
//	258        .efifw
func since(name string) Stub {
	switch name {
	case ".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", SectionPolicyKey:
		return 252
	case ".uname", ".sbat":
		return 254
	case ".ucode":
		return 256
	case sectionProfile, ".dtbauto", ".hwids":
		return 257
	case ".efifw":
		return 258
	}
	return 0
}

// Measures says whether this version measures a section.
func (s Stub) Measures(name string) bool {
	first := since(name)
	return first != 0 && s >= first
}

// String returns the name of a version.
func (s Stub) String() string {
	if s == 0 {
		return "unknown systemd-stub"
	}
	return fmt.Sprintf("systemd-stub %d", int(s))
}

// ErrUnknownStub says that an image does not tell which stub it has.
var ErrUnknownStub = errors.New("the image does not say which systemd-stub it has, and what is measured depends on that: give its version")

func stubVersion() *regexp.Regexp { return regexp.MustCompile(`^v?([0-9]{3})(?:[^0-9].*)?$`) }

func stubMagic() *regexp.Regexp {
	return regexp.MustCompile(`#### LoaderInfo: systemd-stub ([^#\x00]{1,64}) ####`)
}

// ParseStub reads a version as systemd writes it: "252", "v257", "252.39-1~deb12u2".
func ParseStub(text string) (Stub, error) {
	found := stubVersion().FindStringSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("%.40q is not a version of systemd-stub: it begins with a number of three digits, like 252", text)
	}
	number, err := strconv.Atoi(found[1])
	if err != nil {
		return 0, err
	}
	if Stub(number) < oldest {
		return 0, fmt.Errorf("systemd-stub %d does not measure into PCR 11: version %d was the first that does", number, int(oldest))
	}
	return Stub(number), nil
}

// stubOf reads the version in .sdmagic. An image without that section has
// version 0.
func stubOf(sections []Section) (Stub, error) {
	for i := range sections {
		if sections[i].Name != sectionMagic {
			continue
		}
		text, err := sections[i].bytes(4096)
		if err != nil {
			return 0, err
		}
		if found := stubMagic().FindSubmatch(text); found != nil {
			return ParseStub(string(found[1]))
		}
	}
	return 0, nil
}
