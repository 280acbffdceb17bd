package eventlog

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
)

// maxText is how many characters of a text in a log are shown.
const maxText = 160

// clean makes a text printable and short.
func clean(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > maxText {
			return b.String() + "..."
		}
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			r = '?'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// quote returns a text, clean, in quotation marks.
func quote(s string) string {
	return `"` + strings.ReplaceAll(clean(strings.TrimRight(s, "\x00")), `"`, "'") + `"`
}

// utf16Text decodes UTF-16, little-endian, up to a NUL.
func utf16Text(b []byte) string {
	units := make([]uint16, 0, min(len(b)/2, 2*maxText))
	for ; len(b) >= 2 && len(units) < 2*maxText; b = b[2:] {
		unit := binary.LittleEndian.Uint16(b)
		if unit == 0 {
			break
		}
		units = append(units, unit)
	}
	return string(utf16.Decode(units))
}

// anyText decodes what may be UTF-16 or ASCII, and says whether it is text.
func anyText(b []byte) (string, bool) {
	if len(b) >= 4 && len(b)%2 == 0 && b[1] == 0 && b[3] == 0 && b[0] != 0 {
		s := utf16Text(b)
		return s, printable(s)
	}
	s := strings.TrimRight(string(b[:min(len(b), 4*maxText)]), "\x00")
	return s, printable(s)
}

func printable(s string) bool {
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return false
		}
	}
	return s != ""
}

// content describes data of which no more is known.
func content(b []byte) string {
	if s, ok := anyText(b); ok {
		return quote(s)
	}
	return fmt.Sprintf("%d bytes", len(b))
}

// guid is a GUID as EFI stores it: three little-endian numbers and 8 bytes.
type guid [16]byte

func (g guid) String() string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(g[0:]), binary.LittleEndian.Uint16(g[4:]),
		binary.LittleEndian.Uint16(g[6:]), g[8:10], g[10:])
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
