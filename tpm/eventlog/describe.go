package eventlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// words are what an event is about, by which it is found again in another log,
// and what there is to say of it.
type words struct {
	about, detail string
	doubt         bool // its data should have its digest, and do not
}

func (w words) String() string {
	s := w.about
	if w.detail != "" {
		s += ": " + w.detail
	}
	if w.doubt {
		s += " (by its data, which do not have its digest)"
	}
	return s
}

// String returns the PCR, the type and the description of an event.
func (e *Event) String() string {
	where := fmt.Sprintf("PCR %d", e.PCR)
	if !e.Extends() {
		where = "note"
	}
	return fmt.Sprintf("%s  %s  %s", where, e.Type, e.Describe())
}

// Describe says in words what an event is. The words are those of its data; if
// the digest should be that of the data and is not, they say so.
func (e *Event) Describe() string { return e.words().String() }

func (e *Event) words() words {
	w := e.sort()
	if e.bound() && len(e.Digests) > 0 {
		w.doubt = !e.dataMatches(e.Data)
		if v, ok := parseVariable(e.Data); w.doubt && ok { // older firmware, and shim, measure the value only
			w.doubt = !e.dataMatches(v.data)
		}
	}
	return w
}

// bound says whether the specification wants the digest of an event to be that
// of its data.
func (e *Event) bound() bool {
	switch e.Type {
	case EvSeparator, EvAction, EvEFIAction, EvVariableConfig, EvVariableBoot, EvVariableBoot2, EvVariableAuthority,
		EvSCRTMVersion, EvGPT, EvNonhostInfo:
		return true
	}
	return false
}

// sort hands the event to who knows its type.
func (e *Event) sort() words {
	switch e.Type {
	case EvNoAction:
		return describeNote(e.Data)
	case EvSeparator:
		return describeSeparator(e.Data)
	case EvAction, EvEFIAction:
		return words{about: "action " + quote(string(e.Data))}
	case EvEventTag:
		return describeTag(e.Data)
	case EvIPL:
		return e.describeIPL()
	case EvVariableConfig, EvVariableBoot, EvVariableBoot2:
		if v, ok := parseVariable(e.Data); ok {
			return words{about: "variable " + clean(v.name), detail: v.describe()}
		}
	case EvVariableAuthority:
		if v, ok := parseVariable(e.Data); ok {
			return words{about: "authority for an image, from variable " + clean(v.name), detail: v.describeAuthority()}
		}
	case EvBootApplication, EvBootDriver, EvRuntimeDriver:
		return e.describeImage()
	case EvFirmwareBlob, EvFirmwareBlob2:
		return e.describeBlob()
	case EvGPT:
		return e.describeGPT()
	}
	return words{about: e.Type.plain(), detail: content(e.Data)}
}

// plain names a type for people, where no more than the type is known.
func (t Type) plain() string {
	switch t {
	case EvPostCode:
		return "firmware code"
	case EvSCRTMContents:
		return "code of the root of trust"
	case EvSCRTMVersion:
		return "version of the firmware"
	case EvCPUMicrocode:
		return "microcode"
	case EvPlatformConfig:
		return "platform settings"
	case EvTableOfDevices:
		return "table of devices"
	case EvHandoffTables, EvHandoffTables2:
		return "firmware's tables"
	case EvOmitBootDevice:
		return "boot devices are not measured"
	case EvHCRTM:
		return "hardware's root of trust"
	}
	return t.String()
}

func describeNote(data []byte) words {
	switch {
	case bytes.HasPrefix(data, []byte(startupLocality)) && len(data) == len(startupLocality)+1:
		return words{about: "the TPM was started at locality", detail: fmt.Sprint(data[len(startupLocality)])}
	case bytes.HasPrefix(data, []byte("Spec ID Event")):
		return words{about: "header of the log"}
	case bytes.HasPrefix(data, []byte("SP800-155 Event")):
		return words{about: "where the manufacturer's reference values are"}
	}
	name, _, _ := bytes.Cut(data[:min(len(data), 16)], []byte{0})
	if s := string(name); printable(s) {
		return words{about: "note " + quote(s)}
	}
	return words{about: "note", detail: content(data)}
}

func describeSeparator(data []byte) words {
	if len(data) == 4 {
		switch binary.LittleEndian.Uint32(data) {
		case 0, 0xffffffff:
			return words{about: "separator", detail: "the firmware has finished its part"}
		case 1:
			return words{about: "separator", detail: "the firmware reports an error"}
		}
	}
	return words{about: "separator", detail: "of an unknown kind, " + content(data)}
}

// Tags of EvEventTag: Linux (drivers/firmware/efi/libstub/efistub.h) and systemd
// (src/fundamental/tpm2-pcr.h).
func tagName(id uint32) string {
	switch id {
	case 0x8f3b22ec:
		return "initrd as Linux got it"
	case 0x8f3b22ed:
		return "command line as Linux got it"
	case 0xf5bc582a:
		return "loader.conf of systemd-boot"
	case 0x6c46f751:
		return "device tree add-on"
	case 0x49dffe0f:
		return "initrd add-on"
	case 0xdac08e1a:
		return "microcode add-on"
	case 0x13aed6db:
		return "profile of the unified kernel image"
	}
	return ""
}

// describeTag reads TCG_PCClientTaggedEvent: u32 tag | u32 size | data.
func describeTag(data []byte) words {
	c := &cursor{data: data}
	id, size := c.u32(), c.u32()
	text := c.take(uint64(size))
	if c.err != nil {
		return words{about: "tagged event", detail: content(data)}
	}
	if name := tagName(id); name != "" {
		return words{about: name}
	}
	return words{about: fmt.Sprintf("event with the tag %#x", id), detail: content(text)}
}

// sectionName begins what is said of the events by which systemd-stub measures
// the name of a section, before its content.
const sectionName = "name of section "

// describeIPL is for what boot loaders measure. The data of systemd-stub are the
// name of the section in both of its events.
func (e *Event) describeIPL() words {
	text, ok := anyText(e.Data)
	if !ok {
		return words{about: "boot loader", detail: content(e.Data)}
	}
	if e.PCR == kernelPCR && strings.HasPrefix(text, ".") {
		if e.dataMatches(append([]byte(text), 0)) {
			return words{about: sectionName + clean(text) + " of the unified kernel image"}
		}
		return words{about: "section " + clean(text) + " of the unified kernel image"}
	}
	if kind, rest, found := strings.Cut(text, ": "); found && !strings.Contains(kind, " ") {
		return words{about: "boot loader, " + clean(kind), detail: quote(rest)}
	}
	return words{about: "boot loader", detail: quote(text)}
}

// describeImage reads UEFI_IMAGE_LOAD_EVENT.
//
//	u64 address | UINTN length | UINTN linked address | UINTN bytes of the path | device path
func (e *Event) describeImage() words {
	kind := "application"
	if e.Type != EvBootApplication {
		kind = "driver"
	}
	c := &cursor{data: e.Data}
	c.u64()
	size := c.uintn(e.narrow)
	c.uintn(e.narrow)
	path := c.take(c.uintn(e.narrow))
	if c.err != nil {
		return words{about: kind, detail: content(e.Data)}
	}
	if file := lastFile(path); file != "" {
		kind += " " + clean(file)
	}
	return words{about: kind, detail: fmt.Sprintf("%d bytes from %s", size, devicePath(path))}
}

// describeBlob reads where a part of the firmware is; the newer form begins with
// a name.
func (e *Event) describeBlob() words {
	c := &cursor{data: e.Data}
	name := ""
	if e.Type == EvFirmwareBlob2 {
		name, _ = anyText(c.take(uint64(c.u8())))
	}
	base, length := c.u64(), c.u64()
	if c.err != nil {
		return words{about: "part of the firmware", detail: content(e.Data)}
	}
	if name != "" {
		return words{about: "part of the firmware, " + quote(name), detail: fmt.Sprintf("%d bytes", length)}
	}
	return words{about: fmt.Sprintf("part of the firmware at %#x", base), detail: fmt.Sprintf("%d bytes", length)}
}

// describeGPT reads UEFI_GPT_DATA.
//
//	GPT header, 92 bytes | UINTN partitions | entries of the size that the header names
func (e *Event) describeGPT() words {
	const headerSize, diskAt, entryAt, nameAt = 92, 56, 84, 56
	c := &cursor{data: e.Data}
	header := c.take(headerSize)
	number := c.uintn(e.narrow)
	if c.err != nil {
		return words{about: "partition table", detail: content(e.Data)}
	}
	size := uint64(binary.LittleEndian.Uint32(header[entryAt:]))
	var names []string
	for i := uint64(0); i < number && len(names) < 16 && size >= 128; i++ {
		entry := c.take(size)
		if c.err != nil {
			break
		}
		names = append(names, quote(utf16Text(entry[nameAt:128])))
	}
	return words{
		about:  fmt.Sprintf("partition table of disk %s", guid(header[diskAt:][:16])),
		detail: fmt.Sprintf("%d partitions (%s)", number, strings.Join(names, ", ")),
	}
}
