package mapping

import (
	"errors"
	"fmt"
	"io"
	"strings"

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
	if h.PayloadOffset() > 0 {
		return nil
	}
	there, err := luks1.Read(&bareDevice{data, size})
	var refusal *luks.Refusal
	switch {
	case errors.As(err, &refusal):
		return nil
	case err != nil:
		return fmt.Errorf("look for a header where the data begins: %w", err)
	case strings.EqualFold(there.UUID(), h.UUID()):
		return errors.New("the header says that its data begins at byte 0, and the header itself lies there: the data would lie over it; a detached header belongs on another device than its data")
	}
	return nil
}
