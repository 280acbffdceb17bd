package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/disk"
	"github.com/cryptctl/cryptctl/internal/durable"
	"github.com/cryptctl/cryptctl/luks"
)

// target is the volume that a command is about, as its flags name it.
type target struct {
	offset    string
	partition string
	header    string
}

func (t *target) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.partition, "partition", "", "the volume is the partition with this `LABEL` on the device or image")
	f.StringVar(&t.offset, "offset", "", "the volume begins at this `BYTE` of the device or image (1M, 512, ...)")
	f.StringVar(&t.header, "header", "", "the header lies detached in this `FILE`")
}

// volume is an open target.
type volume struct {
	header luks.Device // where the header is: data, unless it is detached
	data   luks.Device
	name   string // for messages
	files  []*luks.File
}

func (v *volume) Close() {
	for _, f := range v.files {
		f.Close()
	}
}

// open opens the device, and in it the partition or offset, and the detached
// header when there is one. Only what holds the header is opened for writing.
func (t *target) open(path string, mode luks.Mode) (*volume, error) {
	dataMode := mode
	if t.header != "" && mode == luks.ReadWrite {
		dataMode = luks.ReadOnly
	}
	file, err := luks.OpenFile(path, dataMode)
	if err != nil {
		return nil, err
	}
	v := &volume{data: file, name: path, files: []*luks.File{file}}
	if err := t.narrow(v, file); err != nil {
		v.Close()
		return nil, err
	}
	v.header = v.data
	if t.header != "" {
		header, err := luks.OpenFile(t.header, mode)
		if err != nil {
			v.Close()
			return nil, fmt.Errorf("detached header: %w", err)
		}
		v.header = header
		v.files = append(v.files, header)
		if sameFile(file, header) {
			v.Close()
			return nil, usageError("--header %s is the device itself: its data would lie over its header", t.header)
		}
	}
	return v, nil
}

func sameFile(a, b *luks.File) bool {
	x, err := a.File().Stat()
	y, err2 := b.File().Stat()
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// narrow turns the whole device into the partition or offset that is meant.
func (t *target) narrow(v *volume, file *luks.File) error {
	offset, size := int64(0), file.Size()
	if info, err := file.File().Stat(); err == nil && !info.Mode().IsRegular() && (t.partition != "" || t.offset != "") {
		// The kernel caches a disk and its partitions apart, and cryptsetup locks
		// the partition: through the whole disk neither would see the other.
		return usageError("%s is a block device; name the partition's own device instead of --partition or --offset", v.name)
	}
	switch {
	case t.partition != "" && t.offset != "":
		return usageError("--partition and --offset both say where the volume begins; give one of them")
	case t.partition != "":
		table, err := disk.Read(file.File())
		if err != nil {
			return err
		}
		p, err := table.Find(t.partition)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		offset, size = p.Offset, p.Size
		v.name += ", partition " + t.partition
	case t.offset != "":
		var err error
		if offset, err = disk.ParseSize(t.offset); err != nil {
			return usageError("--offset: %w", err)
		}
		if offset%512 != 0 {
			return usageError("--offset %s is not a multiple of 512 bytes", t.offset)
		}
		size -= offset
		v.name += ", byte " + t.offset
	default:
		return nil
	}
	section, err := luks.Section(file, offset, size)
	if err != nil {
		return fmt.Errorf("%s: %w", v.name, err)
	}
	v.data = section
	return nil
}

// read opens the volume and reads its header.
func (t *target) read(path string, mode luks.Mode) (*volume, *luks.Header, error) {
	v, err := t.open(path, mode)
	if err != nil {
		return nil, nil, err
	}
	h, err := luks.Read(v.header)
	if err != nil {
		v.Close()
		return nil, nil, fmt.Errorf("%s: %w", v.name, explain(err))
	}
	return v, h, nil
}

// explain adds what to do next to errors that a user meets often.
func explain(err error) error {
	if errors.Is(err, luks.NotLUKS) {
		return fmt.Errorf("%w; is it the right device? A volume inside an image needs --partition or --offset, a detached header --header", err)
	}
	return err
}

// createHeader makes the file for a detached header, unless it is there.
func createHeader(path string) (made bool, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil // whether it may be overwritten is for the probe to say
	}
	if err != nil {
		return false, err
	}
	err = errors.Join(f.Truncate(luks.DefaultDataOffset), f.Sync(), f.Close())
	return true, errors.Join(err, durable.SyncDir(filepath.Dir(path)))
}
