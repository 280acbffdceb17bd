package kdf

import (
	"os"
	"path"
	"strconv"
	"strings"
)

// memory returns what /proc/meminfo says, or the limit of our control group or
// of one above it where that is lower.
func memory() amount {
	m := amount{total: 2 << 20, available: 1 << 20}
	info, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(info)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, err := strconv.ParseUint(f[1], 10, 64)
		switch {
		case err != nil:
		case f[0] == "MemTotal:":
			m.total = n
		case f[0] == "MemAvailable:":
			m.available = n
		}
	}
	limit := groupLimit()
	return amount{min(m.total, limit), min(m.available, limit)}
}

// groupLimit returns the lowest memory.max from our control group (version 2) up
// to the root, in KiB.
func groupLimit() uint64 {
	limit := ^uint64(0)
	group, _ := os.ReadFile("/proc/self/cgroup")
	_, at, ok := strings.Cut(strings.TrimSpace(string(group)), "0::")
	if !ok {
		return limit
	}
	for ; ; at = path.Dir(at) {
		text, err := os.ReadFile(path.Join("/sys/fs/cgroup", at, "memory.max"))
		if n, perr := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && perr == nil {
			limit = min(limit, n>>10)
		}
		if at == "/" || at == "." {
			return limit
		}
	}
}
