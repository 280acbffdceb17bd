package probe

import (
	"errors"
	"fmt"
	"os"

	"github.com/siderolabs/go-blockdevice/v2/blkid"
	"golang.org/x/sys/unix"
)

// secondVoice asks package blkid of go-blockdevice what it sees.
//
// It is shown a sparse copy in memory with the area's ends, not the device:
// blkid reads only an *os.File from its byte 0, so a partition within an image
// needs a copy anyhow; the copy bounds what a hostile table makes it read; and
// on a device it says "nothing" of a private device-mapper device and fails
// when someone else holds the lock. The copy has no sector size, so it is asked
// about a GPT with both.
func secondVoice(v *view) ([]Finding, error) {
	if v.size < blkid.MinProbeSize {
		return nil, nil // blkid refuses these; all their bytes are checked for zero
	}
	f, err := sparseCopy(v)
	if err != nil {
		return nil, fmt.Errorf("copy for go-blockdevice: %w", err)
	}
	defer f.Close()
	var found []Finding
	for _, sector := range []uint{512, 4096} {
		info, err := ask(f, sector)
		if err != nil {
			return found, fmt.Errorf("go-blockdevice: %w", err)
		}
		if info.Name == "" {
			continue
		}
		at := int64(0)
		if len(info.SignatureRanges) > 0 { // only the first: those of nested tables lack the offset
			at = int64(info.SignatureRanges[0].Offset)
		}
		found = append(found, Finding{kindOf(info.Name), at, "what go-blockdevice takes for " + info.Name})
	}
	return found, nil
}

// ask turns a panic into an error: blkid parses bytes of a stranger, and a node
// must not fail to boot over them.
func ask(f *os.File, sector uint) (info *blkid.Info, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return blkid.Probe(f, blkid.WithSkipLocking(true), blkid.WithSectorSize(sector))
}

// sparseCopy returns an anonymous file in memory as large as the area, which
// holds the area's ends.
func sparseCopy(v *view) (*os.File, error) {
	fd, err := unix.MemfdCreate("probe", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("probe", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "probe")
	if err := fill(f, v); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func fill(f *os.File, v *view) error {
	if err := f.Truncate(v.size); err != nil {
		return err
	}
	for _, end := range []struct {
		at int64
		b  []byte
	}{{0, v.head}, {v.tailAt(), v.tail}} {
		for i := 0; i < len(end.b); i += sampleSize {
			part := end.b[i:min(i+sampleSize, len(end.b))]
			if firstNonZero(part) < 0 {
				continue // a hole reads the same and takes no memory
			}
			if _, err := f.WriteAt(part, end.at+int64(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// kindOf translates blkid's names to ours.
func kindOf(name string) string {
	switch name {
	case "luks":
		return KindLUKS2 // it knows no other version
	case "ext2", "ext3", "ext4":
		return "ext"
	case "linux_raid_member":
		return "md"
	case "lvm2-pv":
		return "lvm"
	case "vfat":
		return "fat"
	case "talosmeta":
		return KindMeta
	}
	return name
}
