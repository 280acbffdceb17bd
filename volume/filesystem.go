package volume

import (
	"context"
	"fmt"
	"os"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/probe"
)

// xfsLeast is below what mkfs.xfs takes (xfsprogs 5.19 and later, 300 MiB).
const xfsLeast = 320 << 20

func (v *Volume) mkfs(ctx context.Context) error {
	v.Filesystem = v.Spec.Filesystem
	if v.Filesystem == Auto {
		f, err := luks.OpenFile(v.Path, luks.ReadOnly)
		if err != nil {
			return err
		}
		defer f.Close()
		if v.Filesystem = XFS; f.Size() < xfsLeast {
			v.Filesystem = Ext4
		}
	}
	if err := v.opener.System.Mkfs(ctx, v.Path, v.Filesystem); err != nil {
		return fmt.Errorf("%w: make %s: %w", ErrHalfMade, v.Filesystem, err)
	}
	return nil
}

// look returns the file system on an open volume, None when there is nothing;
// anything but the expected is an error.
func (v *Volume) look() (string, error) {
	f, err := os.Open(v.Path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		return "", err
	}
	found, err := probe.Signatures(area{f, size})
	if err != nil {
		return "", err
	}
	return v.judge(found)
}

// judge says which file system the findings on an open volume are. It goes by the
// superblock that is mounted: what else looks like one, such as the backup of an
// older file system, or a file that imitates it, is content.
func (v *Volume) judge(found []probe.Finding) (string, error) {
	want, name := v.Spec.Filesystem, ""
	var other *probe.Finding
	for _, f := range found {
		head := headName(f)
		switch {
		case f.Kind == probe.KindMarker: // proveEmpty judges it
		case head != "" && name == "":
			name = head
		case head != "" && head != name, isLUKS(f, want):
			return "", fmt.Errorf("%w: %s", ErrContent, f)
		case head == "" && other == nil:
			other = &f
		}
	}
	switch {
	case want == None: // what is in there is for its user to say
		return None, nil
	case name != "" && (want == name || want == Auto && name != Swap):
		return name, nil
	case name != "":
		return "", fmt.Errorf("%w: the file system %s", ErrContent, name)
	case other != nil:
		return "", fmt.Errorf("%w: %s", ErrContent, other)
	}
	return None, nil
}

// headName returns the file system whose superblock a finding is; "" for one that
// is not made here, and for a copy.
func headName(f probe.Finding) string {
	switch {
	case f.Kind == "xfs" && f.Offset == 0:
		return XFS
	case f.Kind == "ext" && f.Offset == 0x438:
		return Ext4
	case f.Kind == "swap":
		return Swap
	}
	return ""
}

// isLUKS reports whether a finding means that the data is encrypted. A lone
// secondary header does where the volume is to have no file system: with one, it
// is a leftover or somebody's file.
func isLUKS(f probe.Finding, want string) bool {
	switch f.Kind {
	case probe.KindLUKS1, probe.KindLUKS2, "luks":
		return true
	case probe.KindLUKS2Secondary:
		return want == None
	}
	return false
}

// area is an open file as package probe wants it.
type area struct {
	*os.File
	size int64
}

func (a area) Size() int64 { return a.size }
