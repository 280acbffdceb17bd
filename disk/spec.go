package disk

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Spec is a partition to make.
type Spec struct {
	Label string // 1 to 36 UTF-16 units, no control characters
	Size  int64  // bytes, a multiple of 512; 0: what the others leave, for one at most
	Type  string // GUID; "": LinuxFilesystem
}

// rest is how a Spec of size 0 is written.
const rest = "rest"

// ParseSpec reads "LABEL=SIZE" with a size as in [ParseSize], or "LABEL=rest".
func ParseSpec(s string) (Spec, error) {
	at := strings.LastIndexByte(s, '=')
	if at < 0 {
		return Spec{}, fmt.Errorf("partition %q: write LABEL=SIZE, as in STATE=100MiB, or LABEL=rest", s)
	}
	spec := Spec{Label: s[:at]}
	if err := checkLabel(spec.Label); err != nil {
		return Spec{}, fmt.Errorf("partition %q: %w", s, err)
	}
	if s[at+1:] == rest {
		return spec, nil
	}
	size, err := ParseSize(s[at+1:])
	if err == nil && size == 0 {
		err = fmt.Errorf("a partition has at least one byte; for all that is left, write %s=%s", spec.Label, rest)
	}
	if err != nil {
		return Spec{}, fmt.Errorf("partition %q: %w", s, err)
	}
	spec.Size = size
	return spec, nil
}

// ParseSize reads a number of bytes: digits, and K, M, G or T for powers of
// 1024, which may be followed by iB. There are no fractions and no powers of
// 1000.
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRightFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	unit := s[len(digits):]
	shift := 0
	switch strings.TrimSuffix(unit, "iB") {
	case "K":
		shift = 10
	case "M":
		shift = 20
	case "G":
		shift = 30
	case "T":
		shift = 40
	default:
		if unit != "" {
			return 0, fmt.Errorf("size %q: the unit %q is not known; write K, M, G or T for powers of 1024, as in 100M or 100MiB", s, unit)
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("size %q: %q is not a whole number of bytes below 2^63", s, digits)
	}
	if n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("size %q: more than 2^63 bytes", s)
	}
	return int64(n) << shift, nil
}

// checkLabel says whether a label fits a table and can be shown and typed.
func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("the label is empty")
	case !utf8.ValidString(label) || strings.ContainsFunc(label, unicode.IsControl):
		return fmt.Errorf("the label %q is not plain text", label)
	case len(utf16.Encode([]rune(label))) > len(entry{}.Label):
		return fmt.Errorf("the label %q is longer than %d UTF-16 units", label, len(entry{}.Label))
	}
	return nil
}

// checkSpecs says what can be said of the partitions before there is an image.
func checkSpecs(parts []Spec) error {
	if len(parts) > newEntries {
		return fmt.Errorf("%d partitions; a table has room for %d", len(parts), newEntries)
	}
	labels, rests := map[string]bool{}, 0
	for _, p := range parts {
		if err := checkLabel(p.Label); err != nil {
			return err
		}
		if labels[p.Label] {
			return fmt.Errorf("two partitions are labelled %q", p.Label)
		}
		labels[p.Label] = true
		if p.Size < 0 || p.Size%newSector != 0 {
			return fmt.Errorf("partition %q: its size of %d bytes is not a multiple of %d", p.Label, p.Size, newSector)
		}
		if p.Size == 0 {
			rests++
		}
	}
	if rests > 1 {
		return fmt.Errorf("%d partitions are to have the rest of the image; only one can", rests)
	}
	return nil
}

const (
	newSector  = 512
	newEntries = 128     // what the writer of go-blockdevice writes, whatever it is given
	alignment  = 1 << 20 // of the start of every partition
)
