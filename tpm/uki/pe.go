package uki

import (
	"cmp"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Limits of a PE file. Real images have 10 to 30 sections, the largest of which
// is the initrd.
const (
	maxImage    = 2 << 30
	maxSection  = 1 << 30
	maxSections = 512
	// maxPadding is how many zeros may follow in memory what a section has in the
	// file. Tools that make images pad to a page or to the file's alignment.
	maxPadding = 16 << 20

	efiApplication = 10 // IMAGE_SUBSYSTEM_EFI_APPLICATION
)

// UKI is a unified kernel image that was opened.
type UKI struct {
	// Stub is the version that the image names, 0 if it names none.
	Stub Stub

	base     Sections
	profiles []Sections
	file     io.Closer
}

// Open opens an image file. It has to be closed.
func Open(path string) (*UKI, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	var u *UKI
	if err == nil {
		u, err = Read(f, info.Size())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	u.file = f
	return u, nil
}

// Close closes the file that Open opened.
func (u *UKI) Close() error {
	if u.file == nil {
		return nil
	}
	return u.file.Close()
}

// Read reads the table of an image's sections. Their content is read from r when
// it is needed.
func Read(r io.ReaderAt, size int64) (*UKI, error) {
	if size > maxImage {
		return nil, fmt.Errorf("the image has %d bytes, more than %d", size, int64(maxImage))
	}
	f, err := pe.NewFile(io.NewSectionReader(r, 0, size))
	if err != nil {
		return nil, fmt.Errorf("it is not a PE file, or a damaged one: %w", err)
	}
	if subsystem(f) != efiApplication {
		return nil, errors.New("it is a PE file, but no EFI application")
	}
	if len(f.Sections) > maxSections {
		return nil, fmt.Errorf("the image has %d sections, more than %d", len(f.Sections), maxSections)
	}
	if err := ownNames(r, f); err != nil {
		return nil, err
	}
	if err := checkMemory(f.Sections); err != nil {
		return nil, err
	}
	sections := make([]Section, len(f.Sections))
	for i, s := range f.Sections {
		if sections[i], err = section(r, size, &s.SectionHeader); err != nil {
			return nil, err
		}
	}
	u := new(UKI)
	if u.Stub, err = stubOf(sections); err != nil {
		return nil, err
	}
	if err := u.arrange(sections); err != nil {
		return nil, err
	}
	if _, err := u.base.get(".linux"); err != nil && len(u.profiles) == 0 {
		return nil, errors.New("the image has no kernel (.linux): it is an EFI application, but no unified kernel image")
	}
	return u, nil
}

// ownNames gives the sections the names in their headers. Package pe follows
// references to long names, as in object files ("/4"); the stub does not, and
// would not see a section that is called so.
func ownNames(r io.ReaderAt, f *pe.File) error {
	const headerAt, coffSize, sectionSize, nameSize = 0x3c, 4 + 20, 40, 8
	var dos [headerAt + 4]byte
	if _, err := r.ReadAt(dos[:], 0); err != nil || string(dos[:2]) != "MZ" {
		return errors.New("it is not a PE file: it does not begin with MZ")
	}
	at := int64(binary.LittleEndian.Uint32(dos[headerAt:])) + coffSize + int64(f.SizeOfOptionalHeader)
	for i, s := range f.Sections {
		var name [nameSize]byte
		if _, err := r.ReadAt(name[:], at+int64(i)*sectionSize); err != nil {
			return fmt.Errorf("the table of sections: %w", err)
		}
		s.Name, _, _ = strings.Cut(string(name[:]), "\x00")
	}
	return nil
}

func subsystem(f *pe.File) uint16 {
	switch h := f.OptionalHeader.(type) {
	case *pe.OptionalHeader64:
		return h.Subsystem
	case *pe.OptionalHeader32:
		return h.Subsystem
	}
	return 0
}

// checkMemory refuses sections that share memory: the later one overwrites the
// earlier, so what is measured is not what is in the file. It is what objcopy
// makes when its addresses are too close to each other.
func checkMemory(sections []*pe.Section) error {
	sorted := slices.Clone(sections)
	slices.SortStableFunc(sorted, func(a, b *pe.Section) int { return cmp.Compare(a.VirtualAddress, b.VirtualAddress) })
	var last *pe.Section
	for _, s := range sorted {
		if s.VirtualSize == 0 {
			continue
		}
		if last != nil && uint64(last.VirtualAddress)+uint64(last.VirtualSize) > uint64(s.VirtualAddress) {
			return fmt.Errorf("sections %.8q and %.8q of the image overlap in memory: it will not be measured as it is written, build it with addresses further apart", last.Name, s.Name)
		}
		last = s
	}
	return nil
}

// section checks one section header.
func section(r io.ReaderAt, size int64, h *pe.SectionHeader) (Section, error) {
	from, stored, memory := int64(h.Offset), int64(h.Size), int64(h.VirtualSize)
	switch {
	case stored > 0 && from+stored > size:
		return Section{}, fmt.Errorf("section %.8q of the image ends at byte %d, the file at %d: it is cut off or damaged", h.Name, from+stored, size)
	case memory > maxSection:
		return Section{}, fmt.Errorf("section %.8q of the image has %d bytes, more than %d", h.Name, memory, int64(maxSection))
	case memory-stored > maxPadding && slices.Contains(SectionNames(), h.Name):
		return Section{}, fmt.Errorf("section %.8q of the image has %d bytes in memory and only %d in the file", h.Name, memory, stored)
	}
	stored = min(stored, memory)
	return Section{h.Name, memory, stored, func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(r, from, stored)), nil
	}}, nil
}

// arrange sorts the sections into those before the first .profile and those of
// each profile, which begins with a .profile.
func (u *UKI) arrange(sections []Section) error {
	for _, s := range sections {
		if !slices.Contains(SectionNames(), s.Name) {
			continue
		}
		if s.Name == sectionProfile {
			u.profiles = append(u.profiles, nil)
		}
		to := &u.base
		if n := len(u.profiles); n > 0 {
			to = &u.profiles[n-1]
		}
		if slices.ContainsFunc(*to, func(o Section) bool { return o.Name == s.Name }) && !byMachine(s.Name) {
			return fmt.Errorf("the image has two sections %s: which one is used depends on the stub", s.Name)
		}
		*to = append(*to, s)
	}
	return nil
}

// Profiles returns how many profiles can be chosen from in the boot menu, at
// least 1.
func (u *UKI) Profiles() int { return max(len(u.profiles), 1) }

// Sections returns what the stub finds when a profile was chosen; 0 is the first
// and the one without a choice. A profile's sections take the place of those of
// the same name that are for all.
func (u *UKI) Sections(profile int) (Sections, error) {
	if profile < 0 || profile >= u.Profiles() {
		return nil, fmt.Errorf("there is no profile %d in the image: it has %d", profile, u.Profiles())
	}
	if len(u.profiles) == 0 {
		return slices.Clone(u.base), nil
	}
	own := u.profiles[profile]
	found := slices.Clone(own)
	for _, s := range u.base {
		if !slices.ContainsFunc(own, func(o Section) bool { return o.Name == s.Name }) {
			found = append(found, s)
		}
	}
	return found, nil
}
