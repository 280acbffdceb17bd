package volume

import (
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// zeroOut makes a part of a block device read as zeros (BLKZEROOUT,
// linux/fs.h), and of a file by a hole.
func zeroOut(f *os.File, offset, length int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
	}
	span := [2]uint64{uint64(offset), uint64(length)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&span))); errno != 0 {
		return errno
	}
	return nil
}

// users names processes that have something open below a directory.
func users(dir string) (names []string) {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		links, _ := filepath.Glob(proc + "/fd/*")
		for _, link := range append(links, proc+"/cwd", proc+"/root") {
			path, err := os.Readlink(link)
			if err != nil || path != dir && !strings.HasPrefix(path, dir+"/") {
				continue
			}
			comm, _ := os.ReadFile(proc + "/comm")
			names = append(names, "process "+filepath.Base(proc)+" ("+strings.TrimSpace(string(comm))+")")
			break
		}
	}
	return names
}
