package eventlog

import (
	"fmt"
	"net/netip"
	"strings"
)

// maxNodes is how many nodes of a device path are shown.
const maxNodes = 32

// devicePath writes a device path as the UEFI shell does (UEFI, 10.6). Kinds of
// nodes that are not known show as numbers.
//
//	u8 type | u8 subtype | u16 length of the node | data ... until type 0x7f, subtype 0xff
func devicePath(b []byte) string {
	var nodes []string
	for c := (&cursor{data: b}); c.left() > 0; {
		kind, sub, length := c.u8(), c.u8(), c.u16()
		if kind == 0x7f && sub == 0xff && c.err == nil {
			break
		}
		data := c.take(max(uint64(length), 4) - 4)
		if c.err != nil || length < 4 || len(nodes) == maxNodes {
			nodes = append(nodes, "...")
			break
		}
		nodes = append(nodes, deviceNode(kind, sub, data))
	}
	return clean(strings.Join(nodes, "/"))
}

// lastFile returns the path of the file that a device path ends with, if any.
func lastFile(b []byte) string {
	file := ""
	for c := (&cursor{data: b}); c.left() > 0; {
		kind, sub, length := c.u8(), c.u8(), c.u16()
		data := c.take(max(uint64(length), 4) - 4)
		if c.err != nil || length < 4 || kind == 0x7f {
			break
		}
		if kind == 4 && sub == 4 {
			file = utf16Text(data)
		}
	}
	return file
}

func deviceNode(kind, sub uint8, data []byte) string {
	c := &cursor{data: data}
	text := ""
	switch kind {
	case 1:
		text = hardwareNode(sub, c)
	case 2:
		text = acpiNode(sub, c)
	case 3:
		text = messagingNode(sub, c)
	case 4:
		text = mediaNode(sub, c)
	}
	if text == "" || c.err != nil {
		return fmt.Sprintf("Path(%d,%d,%.32x)", kind, sub, data)
	}
	return text
}

func hardwareNode(sub uint8, c *cursor) string {
	switch sub {
	case 1:
		function, device := c.u8(), c.u8()
		return fmt.Sprintf("Pci(0x%x,0x%x)", device, function)
	case 3:
		kind, from, to := c.u32(), c.u64(), c.u64()
		return fmt.Sprintf("MemoryMapped(0x%x,0x%x,0x%x)", kind, from, to)
	case 4:
		return fmt.Sprintf("VenHw(%s)", c.guid())
	}
	return ""
}

func acpiNode(sub uint8, c *cursor) string {
	if sub != 1 {
		return ""
	}
	hid, uid := c.u32(), c.u32()
	switch hid {
	case 0x0a0341d0, 0x0a0841d0: // PNP0A03, PNP0A08
		return fmt.Sprintf("PciRoot(0x%x)", uid)
	}
	return fmt.Sprintf("Acpi(0x%x,0x%x)", hid, uid)
}

func messagingNode(sub uint8, c *cursor) string {
	switch sub {
	case 2:
		target, unit := c.u16(), c.u16()
		return fmt.Sprintf("Scsi(0x%x,0x%x)", target, unit)
	case 5:
		port, face := c.u8(), c.u8()
		return fmt.Sprintf("USB(0x%x,0x%x)", port, face)
	case 10:
		return fmt.Sprintf("VenMsg(%s)", c.guid())
	case 11:
		return fmt.Sprintf("MAC(%x)", c.take(6))
	case 12, 13:
		return ipNode(sub, c)
	case 18:
		port, multiplier, unit := c.u16(), c.u16(), c.u16()
		return fmt.Sprintf("Sata(0x%x,0x%x,0x%x)", port, multiplier, unit)
	case 23:
		space, id := c.u32(), c.take(8)
		return fmt.Sprintf("NVMe(0x%x,%x)", space, id)
	case 24:
		return fmt.Sprintf("Uri(%s)", clean(string(c.rest())))
	case 26:
		return fmt.Sprintf("SD(0x%x)", c.u8())
	case 29:
		return fmt.Sprintf("eMMC(0x%x)", c.u8())
	}
	return ""
}

// ipNode shows the remote end of an IPv4 or IPv6 node, which follows the local.
func ipNode(sub uint8, c *cursor) string {
	length := uint64(4)
	if sub == 13 {
		length = 16
	}
	c.take(length)
	remote, ok := netip.AddrFromSlice(c.take(length))
	if !ok {
		return ""
	}
	return fmt.Sprintf("IPv%d(%s)", 4+2*(sub-12), remote)
}

func mediaNode(sub uint8, c *cursor) string {
	switch sub {
	case 1:
		number, start, size, signature := c.u32(), c.u64(), c.u64(), c.guid()
		format, kind := c.u8(), c.u8()
		if kind != 2 || format != 2 {
			return fmt.Sprintf("HD(%d,MBR,0x%x,0x%x)", number, start, size)
		}
		return fmt.Sprintf("HD(%d,GPT,%s,0x%x,0x%x)", number, signature, start, size)
	case 2:
		return fmt.Sprintf("CDROM(0x%x)", c.u32())
	case 3:
		return fmt.Sprintf("VenMedia(%s)", c.guid())
	case 4:
		return clean(utf16Text(c.rest()))
	case 6:
		return fmt.Sprintf("FvFile(%s)", c.guid())
	case 7:
		return fmt.Sprintf("Fv(%s)", c.guid())
	case 8:
		c.u32()
		from, to := c.u64(), c.u64()
		return fmt.Sprintf("Offset(0x%x,0x%x)", from, to)
	}
	return ""
}
