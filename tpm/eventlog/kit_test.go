package eventlog_test

import (
	"encoding/binary"
	"testing"
	"unicode/utf16"

	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// writer makes a log, by the specification and without the package's code.
type writer struct {
	banks []pcr.Bank
	b     []byte
}

// newWriter begins a log of these banks.
func newWriter(banks ...pcr.Bank) *writer {
	var sizes [][2]uint16
	for _, b := range banks {
		sizes = append(sizes, [2]uint16{uint16(b), uint16(b.Size())})
	}
	return &writer{banks: banks, b: header(specID("Spec ID Event03", sizes, nil))}
}

// specID is TCG_EfiSpecIdEvent.
func specID(signature string, sizes [][2]uint16, vendor []byte) []byte {
	b := make([]byte, 16)
	copy(b, signature)
	b = append(b, 0, 0, 0, 0, 0, 2, 0, 2)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(sizes)))
	for _, s := range sizes {
		b = binary.LittleEndian.AppendUint16(b, s[0])
		b = binary.LittleEndian.AppendUint16(b, s[1])
	}
	return append(append(b, byte(len(vendor))), vendor...)
}

// header is TCG_PCR_EVENT of PCR 0 and EV_NO_ACTION.
func header(data []byte) []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 4), 3)
	b = append(b, make([]byte, 20)...)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
}

// add writes an event with the digests of measured.
func (w *writer) add(index uint32, kind eventlog.Type, measured, data []byte) *writer {
	digests := map[pcr.Bank][]byte{}
	for _, bank := range w.banks {
		digests[bank] = bank.Sum(measured)
	}
	return w.raw(index, kind, digests, data)
}

// data writes an event with the digests of its data.
func (w *writer) data(index uint32, kind eventlog.Type, data []byte) *writer {
	return w.add(index, kind, data, data)
}

// raw writes an event with these digests.
func (w *writer) raw(index uint32, kind eventlog.Type, digests map[pcr.Bank][]byte, data []byte) *writer {
	w.b = binary.LittleEndian.AppendUint32(w.b, index)
	w.b = binary.LittleEndian.AppendUint32(w.b, uint32(kind))
	at := len(w.b)
	w.b = append(w.b, 0, 0, 0, 0) // how many digests
	for _, bank := range w.banks {
		if digest, has := digests[bank]; has {
			w.b = append(binary.LittleEndian.AppendUint16(w.b, uint16(bank)), digest...)
			w.b[at]++
		}
	}
	w.b = binary.LittleEndian.AppendUint32(w.b, uint32(len(data)))
	w.b = append(w.b, data...)
	return w
}

// note writes an event of EvNoAction, whose digests are zeros.
func (w *writer) note(data []byte) *writer {
	digests := map[pcr.Bank][]byte{}
	for _, bank := range w.banks {
		digests[bank] = make([]byte, bank.Size())
	}
	return w.raw(0, eventlog.EvNoAction, digests, data)
}

func (w *writer) parse(t testing.TB) *eventlog.Log {
	t.Helper()
	l, err := eventlog.Parse(w.b)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func wide(s string) (b []byte) {
	for _, unit := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}

// variable is UEFI_VARIABLE_DATA of EFI's own GUID.
func variable(name string, value []byte) []byte {
	b := []byte{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
	b = binary.LittleEndian.AppendUint64(b, uint64(len(utf16.Encode([]rune(name)))))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	return append(append(b, wide(name)...), value...)
}

// hashes is a signature database of n SHA-256 hashes.
func hashes(n int) []byte {
	b := []byte{0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28}
	b = binary.LittleEndian.AppendUint32(b, uint32(28+48*n))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, 48)
	for i := range n {
		b = append(b, make([]byte, 47)...)
		b = append(b, byte(i))
	}
	return b
}

// node is a node of a device path.
func node(kind, sub byte, data []byte) []byte {
	return append(binary.LittleEndian.AppendUint16([]byte{kind, sub}, uint16(4+len(data))), data...)
}

// image is UEFI_IMAGE_LOAD_EVENT of a file.
func image(file string) []byte {
	path := append(node(4, 4, wide(file+"\x00")), node(0x7f, 0xff, nil)...)
	b := make([]byte, 24)
	b[8] = 100 // bytes of the image
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(path))), path...)
}

var separator = make([]byte, 4)

// machine is a small log of a machine: what its dbx holds, its boot loader and
// its command line may be chosen.
func machine(dbx int, loader, cmdline string) *writer {
	w := newWriter(pcr.SHA1, pcr.SHA256)
	w.data(7, eventlog.EvVariableConfig, variable("SecureBoot", []byte{1}))
	w.data(7, eventlog.EvVariableConfig, variable("dbx", hashes(dbx)))
	w.data(7, eventlog.EvSeparator, separator)
	w.data(4, eventlog.EvSeparator, separator)
	w.add(4, eventlog.EvBootApplication, []byte(loader), image(`\EFI\BOOT\BOOTX64.EFI`))
	for _, section := range [][2]string{{".linux", "kernel"}, {".cmdline", cmdline}} {
		if section[1] == "" {
			continue
		}
		w.add(11, eventlog.EvIPL, []byte(section[0]+"\x00"), wide(section[0]+"\x00"))
		w.add(11, eventlog.EvIPL, []byte(section[1]), wide(section[0]+"\x00"))
	}
	return w
}
