package kdf

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"
)

// availableKiB returns MemAvailable of /proc/meminfo, or the memory limit of
// our control group when that is lower.
func availableKiB() uint64 {
	available := uint64(1 << 20)
	if data, err := os.ReadFile("/proc/meminfo"); err == nil {
		for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
			if f := strings.Fields(s.Text()); len(f) >= 2 && f[0] == "MemAvailable:" {
				if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
					available = n
				}
			}
		}
	}
	if data, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64); err == nil {
			available = min(available, n>>10)
		}
	}
	return available
}
