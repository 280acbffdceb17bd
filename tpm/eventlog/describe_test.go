package eventlog_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
)

func u32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func imageAt(path ...[]byte) []byte {
	all := join(path...)
	return join(make([]byte, 24), u64(uint64(len(all))), all)
}

// gpt is UEFI_GPT_DATA of a disk with named partitions.
func gpt(names ...string) []byte {
	head := make([]byte, 92)
	head[56] = 1 // the disk's GUID
	head[84] = 128
	b := join(head, u64(uint64(len(names))))
	for _, name := range names {
		entry := make([]byte, 128)
		copy(entry[56:], wide(name))
		b = append(b, entry...)
	}
	return b
}

// TestDescribe: events of all kinds, whole, wrong and malicious.
func TestDescribe(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		kind eventlog.Type
		data []byte
		want string
	}{
		{"Secure Boot on", eventlog.EvVariableConfig, variable("SecureBoot", []byte{1}), "variable SecureBoot: on"},
		{"Secure Boot off", eventlog.EvVariableConfig, variable("SecureBoot", []byte{0}), "variable SecureBoot: off"},
		{"Secure Boot not set", eventlog.EvVariableConfig, variable("SecureBoot", nil), "variable SecureBoot: not set"},
		{"Secure Boot with a strange value", eventlog.EvVariableConfig, variable("SecureBoot", []byte{2}), "variable SecureBoot: neither on nor off (1 byte)"},
		{"hashes", eventlog.EvVariableConfig, variable("dbx", hashes(371)), "variable dbx: 371 hashes"},
		{"no database", eventlog.EvVariableConfig, variable("db", []byte("garbage")), "variable db: 7 bytes that are no signature database"},
		{"list too long", eventlog.EvVariableConfig, variable("db", patch(hashes(2), 16, 999)), "variable db: 124 bytes that are no signature database"},
		{"entries of no size", eventlog.EvVariableConfig, variable("db", patch(hashes(2), 24, 0)), "variable db: 124 bytes that are no signature database"},
		{"header longer than the list", eventlog.EvVariableConfig, variable("db", patch(hashes(2), 20, 0xffffffff)), "variable db: 124 bytes that are no signature database"},
		{"name too long", eventlog.EvVariableConfig, patch(variable("db", nil), 16, 0xffffffff), "EV_EFI_VARIABLE_DRIVER_CONFIG: 36 bytes"},
		{"data too long", eventlog.EvVariableConfig, patch(variable("db", nil), 24, 5), "EV_EFI_VARIABLE_DRIVER_CONFIG: 36 bytes"},
		{"terminal escape in a name", eventlog.EvVariableConfig, variable("a\x1b[2Jb", []byte("text")), `variable a?[2Jb: "text"`},
		{"order", eventlog.EvVariableBoot2, variable("BootOrder", []byte{1, 0, 0, 0}), "variable BootOrder: Boot0001, Boot0000"},
		{
			"option", eventlog.EvVariableBoot, variable("Boot0001", join(u32(1), []byte{22, 0}, wide("Debian\x00"), node(4, 4, wide(`\a.efi`+"\x00")), node(0x7f, 0xff, nil))),
			`variable Boot0001: "Debian" at \a.efi`,
		},
		{"option without an end", eventlog.EvVariableBoot, variable("Boot0001", []byte{1, 0, 0, 0, 200, 0, 65, 0}), "variable Boot0001: 8 bytes"},
		{"hash of an image", eventlog.EvVariableAuthority, variable("db", make([]byte, 48)), "authority for an image, from variable db: hash " + strings.Repeat("00", 32)},
		{"shim's authority", eventlog.EvVariableAuthority, variable("SbatLevel", []byte("sbat,1,2022052400\n")), `authority for an image, from variable SbatLevel: "sbat,1,2022052400?"`},
		{"separator", eventlog.EvSeparator, separator, "separator: the firmware has finished its part"},
		{"separator of ones", eventlog.EvSeparator, u32(0xffffffff), "separator: the firmware has finished its part"},
		{"error", eventlog.EvSeparator, u32(1), "separator: the firmware reports an error"},
		{"other separator", eventlog.EvSeparator, []byte("WBCL"), `separator: of an unknown kind, "WBCL"`},
		{"action", eventlog.EvEFIAction, []byte("DMA Protection Disabled"), `action "DMA Protection Disabled"`},
		{"action in quotes", eventlog.EvAction, []byte("a\"b\x00"), `action "a'b"`},
		{"application", eventlog.EvBootApplication, image(`\EFI\BOOT\BOOTX64.EFI`), `application \EFI\BOOT\BOOTX64.EFI: 100 bytes from \EFI\BOOT\BOOTX64.EFI`},
		{"driver", eventlog.EvBootDriver, imageAt(node(1, 1, []byte{0, 2})), "driver: 0 bytes from Pci(0x2,0x0)"},
		{"application without a path", eventlog.EvBootApplication, make([]byte, 20), "application: 20 bytes"},
		{"path too long", eventlog.EvBootApplication, join(make([]byte, 24), u64(1<<63)), "application: 32 bytes"},
		{"load options", eventlog.EvEventTag, join(u32(0x8f3b22ed), u32(2), []byte("xx")), "command line as Linux got it"},
		{"other tag", eventlog.EvEventTag, join(u32(7), u32(2), []byte("xx")), `event with the tag 0x7: "xx"`},
		{"tag too long", eventlog.EvEventTag, join(u32(7), u32(3), []byte("xx")), "tagged event: 10 bytes"},
		{"grub", eventlog.EvIPL, []byte("grub_cmd: insmod ext2\x00"), `boot loader, grub_cmd: "insmod ext2"`},
		{"text", eventlog.EvIPL, []byte("MokList\x00"), `boot loader: "MokList"`},
		{"wide text", eventlog.EvIPL, wide("quiet splash"), `boot loader: "quiet splash"`},
		{"no text", eventlog.EvIPL, []byte{1, 2, 3}, "boot loader: 3 bytes"},
		{"firmware", eventlog.EvFirmwareBlob, join(u64(0x820000), u64(64)), "part of the firmware at 0x820000: 64 bytes"},
		{"named firmware", eventlog.EvFirmwareBlob2, join([]byte{4}, []byte("SEC\x00"), u64(1), u64(64)), `part of the firmware, "SEC": 64 bytes`},
		{"firmware cut short", eventlog.EvFirmwareBlob2, []byte{200, 65}, "part of the firmware: 2 bytes"},
		{"partitions", eventlog.EvGPT, gpt("EFI", "STATE"), `partition table of disk 00000001-0000-0000-0000-000000000000: 2 partitions ("EFI", "STATE")`},
		{"more partitions than there are", eventlog.EvGPT, patch(gpt("EFI"), 92, 1<<31), `partition table of disk 00000001-0000-0000-0000-000000000000: 2147483648 partitions ("EFI")`},
		{"no partitions", eventlog.EvGPT, make([]byte, 99), "partition table: 99 bytes"},
		{"version", eventlog.EvSCRTMVersion, wide("1.20\x00"), `version of the firmware: "1.20"`},
		{"microcode", eventlog.EvCPUMicrocode, []byte("CPU Microcode"), `microcode: "CPU Microcode"`},
		{"not known", 0x8000abcd, nil, "event type 0x8000abcd: 0 bytes"},
	}
	for _, test := range tests {
		l := newWriter(pcr.SHA256).data(7, test.kind, test.data).parse(t)
		if got := l.Events[1].Describe(); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	if long := newWriter(pcr.SHA256).data(7, eventlog.EvAction, bytes.Repeat([]byte("x"), 1<<20)).parse(t).Events[1].Describe(); len(long) > 200 {
		t.Errorf("%d characters of a text", len(long))
	}
}

// TestDoubt: data that do not have the digest are not passed off as what was
// measured.
func TestDoubt(t *testing.T) {
	t.Parallel()
	on := variable("SecureBoot", []byte{1})
	tests := []struct {
		name     string
		kind     eventlog.Type
		measured []byte
		data     []byte
		doubted  bool
	}{
		{"true", eventlog.EvVariableConfig, on, on, false},
		{"lie", eventlog.EvVariableConfig, variable("SecureBoot", []byte{0}), on, true},
		{"value only, as older firmware does", eventlog.EvVariableBoot, []byte{1}, on, false},
		{"separator", eventlog.EvSeparator, u32(1), separator, true},
		{"action", eventlog.EvEFIAction, []byte("a"), []byte("b"), true},
		{"authority", eventlog.EvVariableAuthority, []byte("a"), variable("db", make([]byte, 48)), true},
		{"application", eventlog.EvBootApplication, []byte("its hash"), image("x"), false}, // says nothing of itself
		{"boot loader", eventlog.EvIPL, []byte("content"), []byte("name"), false},
	}
	for _, test := range tests {
		l := newWriter(pcr.SHA256).add(7, test.kind, test.measured, test.data).parse(t)
		got := l.Events[1].Describe()
		if strings.Contains(got, "do not have its digest") != test.doubted {
			t.Errorf("%s: %s", test.name, got)
		}
	}
	// One bank that agrees does not vouch for another.
	w := newWriter(pcr.SHA1, pcr.SHA256)
	w.raw(7, eventlog.EvSeparator, map[pcr.Bank][]byte{pcr.SHA1: pcr.SHA1.Sum(separator), pcr.SHA256: pcr.SHA256.Sum(nil)}, separator)
	if got := w.parse(t).Events[1].Describe(); !strings.Contains(got, "do not have its digest") {
		t.Error(got)
	}
}

// TestDevicePaths: the text that the UEFI shell has for each kind of node.
func TestDevicePaths(t *testing.T) {
	t.Parallel()
	hd := join(u32(1), u64(0x800), u64(0x100000), bytes.Repeat([]byte{0xab}, 16), []byte{2, 2})
	mbr := join(u32(1), u64(0x800), u64(0x100000), make([]byte, 16), []byte{1, 1})
	tests := []struct {
		want string
		path []byte
	}{
		{"PciRoot(0x0)/Pci(0x1f,0x2)/Sata(0x2,0xffff,0x0)", join(node(2, 1, join(u32(0x0a0341d0), u32(0))), node(1, 1, []byte{2, 0x1f}), node(3, 18, []byte{2, 0, 0xff, 0xff, 0, 0}))},
		{"NVMe(0x1,0011223344556677)", node(3, 23, join(u32(1), []byte{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77}))},
		{`HD(1,GPT,abababab-abab-abab-abab-abababababab,0x800,0x100000)/\EFI\a`, join(node(4, 1, hd), node(4, 4, wide(`\EFI\a`)))},
		{"HD(1,MBR,0x800,0x100000)", node(4, 1, mbr)},
		{"MAC(525400123456)/IPv4(10.0.0.1)/Uri(http://boot)", join(node(3, 11, []byte{0x52, 0x54, 0, 0x12, 0x34, 0x56}), node(3, 12, []byte{10, 0, 0, 2, 10, 0, 0, 1}), node(3, 24, []byte("http://boot")))},
		{"IPv6(::1)", node(3, 13, join(make([]byte, 31), []byte{1}))},
		{"USB(0x1,0x0)/Scsi(0x1,0x2)/SD(0x0)/eMMC(0x3)/CDROM(0x1)", join(node(3, 5, []byte{1, 0}), node(3, 2, []byte{1, 0, 2, 0}), node(3, 26, []byte{0}), node(3, 29, []byte{3}), node(4, 2, u32(1)))},
		{"MemoryMapped(0xb,0x1000,0x2000)/Acpi(0x1,0x2)/Offset(0x1,0x2)", join(node(1, 3, join(u32(11), u64(0x1000), u64(0x2000))), node(2, 1, join(u32(1), u32(2))), node(4, 8, join(u32(0), u64(1), u64(2))))},
		{"Path(9,1,0102)", node(9, 1, []byte{1, 2})},
		{"Path(1,1,05)", node(1, 1, []byte{5})}, // cut short
		{"...", []byte{1, 1, 0, 0}},             // a node of no length
		{"...", []byte{1, 1, 255, 0}},           // a node past the end
		{"SD(0x0)/...", join(node(3, 26, []byte{0}), []byte{1})},
		{`\a?b`, node(4, 4, wide("\\a\nb"))},
		{strings.Repeat("SD(0x0)/", 20) + "...", bytes.Repeat(node(3, 26, []byte{0}), 100)},
	}
	for _, test := range tests {
		l := newWriter(pcr.SHA256).data(2, eventlog.EvRuntimeDriver, imageAt(test.path)).parse(t)
		_, got, _ := strings.Cut(l.Events[1].Describe(), "0 bytes from ")
		if got != test.want {
			t.Errorf("%s, want %s", got, test.want)
		}
	}
}

// TestNotes: events that extend nothing.
func TestNotes(t *testing.T) {
	t.Parallel()
	for want, data := range map[string][]byte{
		"the TPM was started at locality: 3":            locality(3),
		"where the manufacturer's reference values are": []byte("SP800-155 Event3\x00"),
		`note "NvIndexInstance"`:                        []byte("NvIndexInstance\x00"),
		"note: 4 bytes":                                 {1, 2, 3, 4},
		`note "StartupLocality"`:                        locality(),
	} {
		e := newWriter(pcr.SHA256).note(data).parse(t).Events[1]
		if e.Describe() != want || e.Extends() || !strings.HasPrefix(e.String(), "note  EV_NO_ACTION  ") {
			t.Errorf("%s, want %s", e.String(), want)
		}
	}
}

// TestNarrow: a firmware of 32 bits has shorter numbers.
func TestNarrow(t *testing.T) {
	t.Parallel()
	path := node(4, 4, wide(`\a`))
	w := newWriter(pcr.SHA256)
	w.b[32+23] = 1 // the width of UINTN
	w.data(4, eventlog.EvBootApplication, join(u64(0), u32(77), u32(0), u32(uint32(len(path))), path))
	if got := w.parse(t).Events[1].Describe(); got != `application \a: 77 bytes from \a` {
		t.Error(got)
	}
}
