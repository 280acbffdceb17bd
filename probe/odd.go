package probe

import (
	"encoding/binary"
	"fmt"
)

// luks finds a primary LUKS header. LUKS1 and LUKS2 share their first six
// bytes; the big-endian version follows.
func luks(v *view) ([]Finding, error) {
	b, err := v.at(0, 8)
	if b == nil || string(b[:6]) != "LUKS\xba\xbe" {
		return nil, err
	}
	switch version := binary.BigEndian.Uint16(b[6:]); version {
	case 1:
		return []Finding{{KindLUKS1, 0, "a LUKS1 header"}}, nil
	case 2:
		return []Finding{{KindLUKS2, 0, "a LUKS2 header"}}, nil
	default:
		return []Finding{{"luks", 0, fmt.Sprintf("a LUKS header of unknown version %d", version)}}, nil
	}
}

// zfs finds the four labels of a ZFS device, two at either end, by their
// uberblocks: 128 of 1 KiB in the second half of every label. libblkid wants
// four of them to be sure; one is enough to be not empty.
func zfs(v *view) ([]Finding, error) {
	const (
		label      = 256 << 10
		uberblocks = label / 2
		step       = 1024
		little     = "\x0c\xb1\xba\x00\x00\x00\x00\x00"
		big        = "\x00\x00\x00\x00\x00\xba\xb1\x0c"
	)
	end := v.size / label * label
	var found []Finding
	for _, at := range []int64{0, label, end - 2*label, end - label} {
		b, err := v.at(at+uberblocks, uberblocks)
		if err != nil {
			return nil, err
		}
		for i := 0; i < len(b); i += step {
			if magic := string(b[i : i+8]); magic == little || magic == big {
				found = append(found, Finding{"zfs", at + uberblocks + int64(i), "a ZFS uberblock"})
				break
			}
		}
	}
	return found, nil
}

// bootSector finds 55 AA at the end of the first sector. That alone means a
// boot sector of some kind; with plausible entries it is an MBR partition table.
func bootSector(v *view) ([]Finding, error) {
	const (
		entries    = 446
		entrySize  = 16
		signatures = 510
	)
	b, err := v.at(0, 512)
	if b == nil || b[signatures] != 0x55 || b[signatures+1] != 0xaa {
		return nil, err
	}
	used := 0
	for e := b[entries:signatures]; len(e) > 0; e = e[entrySize:] {
		status, kind := e[0], e[4]
		start, size := binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
		if kind == 0 && status == 0 && start == 0 && size == 0 {
			continue
		}
		if status&0x7f != 0 || kind == 0 || start == 0 || size == 0 {
			used = 0
			break
		}
		used++
	}
	if used == 0 {
		return []Finding{{"boot-sector", signatures, "the mark of a boot sector"}}, nil
	}
	return []Finding{{KindMBR, signatures, fmt.Sprintf("an MBR partition table (entries in use: %d)", used)}}, nil
}
