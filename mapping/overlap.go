package mapping

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cryptctl/cryptctl/luks"
)

// checkOverlap refuses data that begins at byte 0 of the device that holds its
// header: it would lie over the header. A valid header has its data at byte 0 or
// behind itself, and only a detached one has it at byte 0. Where a header was
// read from does not tell: a loop device and its file are the same bytes. So the
// data device is looked at; a header that is there makes it not detached.
func checkOverlap(h *luks.Header, data io.ReaderAt, size int64) error {
	return overlaps(h.Segments()[0].Offset, h.UUID(), func() (string, error) {
		there, err := luks.Read(&bareDevice{data, size})
		if err != nil {
			return "", err
		}
		return there.UUID(), nil
	})
}

// overlaps is an error when the data begins at byte 0 and the device has a header
// of the same volume there.
func overlaps(offset int64, uuid string, there func() (string, error)) error {
	if offset > 0 {
		return nil
	}
	found, err := there()
	var refusal *luks.Refusal
	switch {
	case errors.As(err, &refusal):
		return nil
	case err != nil:
		return fmt.Errorf("look for a header where the data begins: %w", err)
	case strings.EqualFold(found, uuid):
		return errors.New("the header says that its data begins at byte 0, and the header itself lies there: the data would lie over it; a detached header belongs on another device than its data")
	}
	return nil
}

// bareDevice is a [luks.Device] to read from.
type bareDevice struct {
	io.ReaderAt
	size int64
}

func (d *bareDevice) WriteAt([]byte, int64) (int, error) { return 0, luks.ErrReadOnly }
func (d *bareDevice) Sync() error                        { return nil }
func (d *bareDevice) Size() int64                        { return d.size }
