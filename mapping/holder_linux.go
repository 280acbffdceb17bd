package mapping

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// holders says who holds a block device for longer: mounts, devices on top of
// it, swap.
func holders(n Number) []string {
	found := slices.Concat(mounts("self", n), stacked(n), swaps(n))
	slices.Sort(found)
	return slices.Compact(found)
}

// mounts returns the mount points of the device that a process sees.
// proc(5): the third field of mountinfo is the device's number, the fifth the
// mount point; the source follows the field "-" and one more. File systems on
// several devices, such as btrfs, have numbers of their own, so the source
// counts too.
func mounts(pid string, n Number) (found []string) {
	info, err := os.ReadFile(filepath.Join("/proc", pid, "mountinfo"))
	if err != nil {
		return nil
	}
	for line := range bytes.Lines(info) {
		fields := strings.Fields(string(line))
		dash := slices.Index(fields, "-")
		if len(fields) < 5 || dash < 0 || dash+2 >= len(fields) {
			continue
		}
		source := unescape(fields[dash+2])
		if fields[2] == n.String() || strings.HasPrefix(source, "/dev/") && isDevice(source, n) {
			found = append(found, "mounted on "+unescape(fields[4]))
		}
	}
	return found
}

// unescape reads what the kernel writes as \040.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// stacked returns the block devices that are made of this one.
func stacked(n Number) (found []string) {
	entries, err := os.ReadDir(filepath.Join("/sys/dev/block", n.String(), "holders"))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		name, err := os.ReadFile(filepath.Join("/sys/block", e.Name(), "dm/name"))
		if err != nil {
			found = append(found, "used by /dev/"+e.Name())
			continue
		}
		found = append(found, "used by mapping "+strings.TrimSpace(string(name)))
	}
	return found
}

// swaps reports whether the device is swap space; proc(5), /proc/swaps.
func swaps(n Number) (found []string) {
	list, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return nil
	}
	for line := range bytes.Lines(list) {
		fields := strings.Fields(string(line))
		if len(fields) > 1 && fields[1] == "partition" && isDevice(unescape(fields[0]), n) {
			found = append(found, "used as swap")
		}
	}
	return found
}

// processes looks, where nobody else holds the device, at other mount namespaces,
// such as those of containers, and at open files: of the device, and of a file
// system on it that is mounted nowhere any more. At most as many are named as a
// person reads.
func processes(n Number) (found []string) {
	const most = 8
	comms, _ := filepath.Glob("/proc/[0-9]*/comm")
	seen := map[string]bool{}
	for _, path := range comms {
		if len(found) >= most {
			break
		}
		dir := filepath.Dir(path)
		pid := filepath.Base(dir)
		comm, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		who := fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(comm)))
		if space, err := os.Readlink(filepath.Join(dir, "ns/mnt")); err == nil && !seen[space] {
			seen[space] = true
			for _, m := range mounts(pid, n) {
				found = append(found, m+" in the mount namespace of "+who)
			}
		}
		if opens(dir, n) {
			found = append(found, "open in "+who)
		}
	}
	return found
}

// opens reports whether a process has the device, or a file on it, open.
func opens(dir string, n Number) bool {
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return false
	}
	device := unix.Mkdev(n.Major, n.Minor)
	for _, fd := range fds {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, "fd", fd.Name()), &st) != nil {
			continue
		}
		if st.Dev == device || st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == device {
			return true
		}
	}
	return false
}
