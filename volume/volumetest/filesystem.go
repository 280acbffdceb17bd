package volumetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"github.com/cryptctl/cryptctl/volume"
)

// xfsLeast is what mkfs.xfs takes (xfsprogs 5.19 and later).
const xfsLeast = 300 << 20

// superblock is where a file system keeps its magic and its UUID, in bytes.
type superblock struct {
	magic       string
	magicAt     int64
	filesystem  string
	uuidAt, end int64 // end of what making one writes
}

// superblocks are those of XFS (xfs_format.h, xfs_dsb), ext4 (ext4.h,
// ext4_super_block) and swap (linux/swap.h, swap_header, pages of 4 KiB).
func superblocks() []superblock {
	return []superblock{
		{"XFSB", 0, volume.XFS, 32, 16 << 10},
		{"\x53\xef", 0x438, volume.Ext4, 0x468, 16 << 10},
		{"SWAPSPACE2", 4096 - 10, volume.Swap, 1036, 4096},
	}
}

// Mkfs implements [volume.System]. As the real program it makes no XFS below 300
// MiB.
func (s *System) Mkfs(ctx context.Context, device, filesystem string) error {
	return s.call("Mkfs", []string{name(device), filesystem}, func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := os.Stat(device)
		if err != nil {
			return err
		}
		if err := s.mounted(device); err != nil {
			return err
		}
		if filesystem == volume.XFS && info.Size() < xfsLeast {
			return fmt.Errorf("mkfs.xfs: filesystem must be larger than 300MB, and %s has %d bytes", device, info.Size())
		}
		for _, b := range superblocks() {
			if b.filesystem == filesystem {
				return b.write(device)
			}
		}
		return fmt.Errorf("%q is not made here", filesystem)
	})
}

func (b superblock) write(device string) error {
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	buf := make([]byte, b.end)
	copy(buf[b.magicAt:], b.magic)
	rand.Read(buf[b.uuidAt:][:16])
	_, err = f.WriteAt(buf, 0)
	return errors.Join(err, f.Close())
}

// filesystem returns which file system is on a device, and its UUID.
func filesystem(device string) (kind, id string, err error) {
	f, err := os.Open(device)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	buf := make([]byte, 4096)
	if _, err := f.ReadAt(buf, 0); err != nil {
		return "", "", err
	}
	for _, b := range superblocks() {
		if string(buf[b.magicAt:][:len(b.magic)]) == b.magic {
			return b.filesystem, fmt.Sprintf("%x", buf[b.uuidAt:][:16]), nil
		}
	}
	return "", "", nil
}

// Grow implements [volume.System]. It only checks that the file system is mounted.
func (s *System) Grow(ctx context.Context, device, dir, filesystem string) error {
	return s.call("Grow", []string{name(device), dir, filesystem}, func() error {
		if on, _ := s.at(dir); on.device != device {
			return fmt.Errorf("%s is not mounted on %s", device, dir)
		}
		return ctx.Err()
	})
}

// Zero implements [volume.System].
func (s *System) Zero(ctx context.Context, device string) error {
	return s.call("Zero", []string{name(device)}, func() error {
		if err := errors.Join(ctx.Err(), s.user(device)); err != nil {
			return err
		}
		info, err := os.Stat(device)
		if err != nil {
			return err
		}
		return errors.Join(os.Truncate(device, 0), os.Truncate(device, info.Size()))
	})
}
