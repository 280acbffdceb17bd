package mapping

import (
	"fmt"
	"io"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/luks1"
)

// NewTableLUKS1 says how a LUKS1 volume is mapped, as [NewTable] does. The key
// stands in the table: cryptsetup gives it to the keyring for LUKS2 only
// (docs/Keyring.txt), and such a header has no flags.
func NewTableLUKS1(h *luks1.Header, dev Device, opts Options) (*Table, error) {
	for _, r := range h.Trust(kdf.Limits{}) {
		if r.Level != luks.SlotOnly {
			return nil, fmt.Errorf("the header is refused: %w", r)
		}
	}
	if err := checkUUID(h.UUID()); err != nil {
		return nil, err
	}
	data := luks.Segment{Offset: h.PayloadOffset(), Encryption: h.Cipher(), SectorSize: sectorSize}
	return newTable(data, h.KeySize(), dev, nil, opts.Flags)
}

// checkOverlapLUKS1 is [checkOverlap] for a LUKS1 header.
func checkOverlapLUKS1(h *luks1.Header, data io.ReaderAt, size int64) error {
	return overlaps(h.PayloadOffset(), h.UUID(), func() (string, error) {
		there, err := luks1.Read(&bareDevice{data, size})
		if err != nil {
			return "", err
		}
		return there.UUID(), nil
	})
}
