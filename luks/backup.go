package luks

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cryptctl/cryptctl/internal/durable"
)

// Backup writes the header as it is on the disk now to w: both copies and the
// areas in use, in cryptsetup's backup format, an image of the header area. Room
// that no keyslot uses is written as zeros, so a backup carries no key that was
// removed before it was made.
func (h *Header) Backup(w io.Writer) error {
	image, err := h.image()
	if err != nil {
		return err
	}
	_, err = w.Write(image)
	return err
}

// image renders the header area.
func (h *Header) image() ([]byte, error) {
	release, err := lock(h.dev, false)
	if err != nil {
		return nil, err
	}
	defer release()
	now, err := read(h.dev)
	if err != nil {
		return nil, err
	}
	if !h.sameVolume(now) {
		return nil, fmt.Errorf("the volume itself: %w", ErrConflict)
	}
	low, size := now.KeyslotsArea()
	image := make([]byte, low+size)
	for i, offset := range []int64{0, now.MetadataSize()} {
		b := now.binary
		b.Magic, b.HdrOffset = [][6]byte{primaryMagic, secondaryMagic}[i], uint64(offset)
		data, err := encodeCopy(b, now.doc.encode())
		if err != nil {
			return nil, err
		}
		copy(image[offset:], data)
	}
	for _, a := range now.meta.areas() {
		if err := readAt(now.dev, image[a.Offset:a.end()], a.Offset); err != nil {
			return nil, fmt.Errorf("key material: %w", err)
		}
	}
	return image, nil
}

// BackupFile makes a new file, readable by its owner only, with a backup. It
// never overwrites one, and the file is on stable storage when it returns.
func (h *Header) BackupFile(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s exists already and is left as it is; name a new file", path)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(path)
		}
	}()
	if err := h.Backup(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return durable.SyncDir(filepath.Dir(path))
}
