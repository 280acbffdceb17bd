package luks1

import (
	"encoding/binary"
	"fmt"
)

// materialAt is where an extract has its slot's key material, in sectors.
const materialAt = 4096 / sector

// extract returns a volume of one slot and no data, for luks.go: a header made
// of the one that was checked, and the slot's key material, read now.
func (h *Header) extract(slot int) ([]byte, error) {
	size := h.materialSize()
	volume := make([]byte, materialAt*sector+size)
	material := volume[materialAt*sector:]
	offset := int64(h.raw.Slots[slot].KeyMaterialOffset) * sector
	if n, err := h.dev.ReadAt(material, offset); n != len(material) {
		return nil, fmt.Errorf("read %d bytes of key material at byte %d: %w", size, offset, err)
	}
	raw := h.raw
	raw.PayloadOffset = 0
	for id := range raw.Slots {
		raw.Slots[id] = rawSlot{Active: disabled}
	}
	raw.Slots[0] = h.raw.Slots[slot]
	raw.Slots[0].KeyMaterialOffset = materialAt
	if _, err := binary.Encode(volume, binary.BigEndian, &raw); err != nil {
		return nil, fmt.Errorf("make a LUKS1 header: %w", err)
	}
	return volume, nil
}
