package eventlog

import (
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"strings"
)

// variable is UEFI_VARIABLE_DATA.
//
//	GUID | u64 characters of the name | u64 bytes of data | name, UTF-16 | data
type variable struct {
	vendor guid
	name   string
	data   []byte
}

// maxName is how many characters of a variable's name are accepted.
const maxName = 1024

func parseVariable(b []byte) (v variable, ok bool) {
	c := &cursor{data: b}
	v.vendor = c.guid()
	name, data := c.u64(), c.u64()
	if name > maxName {
		return v, false
	}
	v.name = utf16Text(c.take(2 * name))
	v.data = c.take(data)
	return v, c.err == nil && c.left() == 0
}

// GUIDs of the kinds of entries in signature databases (UEFI, 32.4.1), as EFI
// stores them.
var (
	certX509   = guid{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}
	certSHA256 = guid{0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28}
)

// describe says what is in a variable that is measured.
func (v *variable) describe() string {
	switch v.name {
	case "SecureBoot", "SetupMode", "AuditMode", "DeployedMode":
		return onOff(v.data)
	case "PK", "KEK", "db", "dbx", "dbt", "dbr":
		return describeSignatures(v.data)
	case "BootOrder":
		return describeOrder(v.data)
	}
	if len(v.name) == len("Boot0000") && strings.HasPrefix(v.name, "Boot") {
		return describeOption(v.data)
	}
	return content(v.data)
}

func onOff(b []byte) string {
	switch {
	case len(b) == 0:
		return "not set"
	case len(b) == 1 && b[0] == 1:
		return "on"
	case len(b) == 1 && b[0] == 0:
		return "off"
	}
	return fmt.Sprintf("neither on nor off (%s)", count(len(b), "byte"))
}

// describeSignatures counts the entries of a signature database and names its
// certificates.
//
//	list: GUID of the kind | u32 size of the list | u32 of a header | u32 of an entry | header | entries
//	entry: GUID of the owner | certificate or hash
func describeSignatures(b []byte) string {
	if len(b) == 0 {
		return "empty"
	}
	var certificates []string
	hashes, others := 0, 0
	for c := (&cursor{data: b}); c.left() > 0; {
		kind, size, header, entry := c.guid(), c.u32(), c.u32(), c.u32()
		if c.err != nil || size < 28 || uint64(header)+28 > uint64(size) || entry < 16 {
			return fmt.Sprintf("%d bytes that are no signature database", len(b))
		}
		entries := c.take(uint64(size) - 28)
		if c.err != nil {
			return fmt.Sprintf("%d bytes that are no signature database", len(b))
		}
		entries = entries[header:]
		for ; uint64(len(entries)) >= uint64(entry); entries = entries[entry:] {
			switch kind {
			case certX509:
				certificates = append(certificates, certificateName(entries[16:entry]))
			case certSHA256:
				hashes++
			default:
				others++
			}
		}
	}
	return listSignatures(certificates, hashes, others)
}

// maxNamed is how many certificates are named.
const maxNamed = 4

func listSignatures(certificates []string, hashes, others int) string {
	var parts []string
	if n := len(certificates); n > 0 {
		named := certificates[:min(n, maxNamed)]
		part := count(n, "certificate") + " (" + strings.Join(named, ", ")
		if n > maxNamed {
			part += ", ..."
		}
		parts = append(parts, part+")")
	}
	if hashes == 1 {
		parts = append(parts, "1 hash")
	} else if hashes > 1 {
		parts = append(parts, fmt.Sprintf("%d hashes", hashes))
	}
	if others > 0 {
		parts = append(parts, fmt.Sprintf("%d of other kinds", others))
	}
	if len(parts) == 0 {
		return "empty"
	}
	return strings.Join(parts, ", ")
}

// certificateName returns whom a certificate is of.
func certificateName(der []byte) string {
	certificate, err := x509.ParseCertificate(der)
	switch {
	case err != nil:
		return fmt.Sprintf("unreadable, %d bytes", len(der))
	case certificate.Subject.CommonName != "":
		return quote(certificate.Subject.CommonName)
	}
	return quote(certificate.Subject.String())
}

// describeAuthority says what vouched for an image: an EFI_SIGNATURE_DATA.
func (v *variable) describeAuthority() string {
	if len(v.data) < 16 {
		return content(v.data)
	}
	if entry := v.data[16:]; len(entry) != 32 {
		if name := certificateName(entry); !strings.HasPrefix(name, "unreadable") {
			return "certificate " + name
		}
		return content(v.data) // shim's own variables
	}
	return fmt.Sprintf("hash %x", v.data[16:])
}

func describeOrder(b []byte) string {
	var names []string
	for ; len(b) >= 2 && len(names) < 16; b = b[2:] {
		names = append(names, fmt.Sprintf("Boot%04X", binary.LittleEndian.Uint16(b)))
	}
	if len(b) > 0 {
		names = append(names, "...")
	}
	return strings.Join(names, ", ")
}

// describeOption reads an EFI_LOAD_OPTION (UEFI, 3.1.3).
//
//	u32 attributes | u16 bytes of the path | name, UTF-16, NUL | device path | optional data
func describeOption(b []byte) string {
	c := &cursor{data: b}
	c.u32()
	length := c.u16()
	var name []byte
	for c.err == nil {
		unit := c.take(2)
		if unit == nil || unit[0]|unit[1] == 0 {
			break
		}
		name = append(name, unit...)
	}
	path := c.take(uint64(length))
	if c.err != nil {
		return content(b)
	}
	return quote(utf16Text(name)) + " at " + devicePath(path)
}
