package main

import (
	"bufio"
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// versions says what was compared.
func (b *bench) versions(ctx context.Context) []string {
	return []string{ourVersion(ctx, b.cryptctl), peerVersion(ctx, b.cryptsetup)}
}

// ourVersion returns what cryptctl says of itself and, if that is in the binary,
// the commit it was built from. A tree with changes of its own is marked.
func ourVersion(ctx context.Context, path string) string {
	out, err := exec.CommandContext(ctx, path, "version").Output()
	if err != nil {
		return "cryptctl: " + err.Error()
	}
	version := strings.TrimSpace(string(out))
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return version
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			version += ", commit " + s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			version += " with changes"
		}
	}
	return version
}

func peerVersion(ctx context.Context, path string) string {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "cryptsetup: " + err.Error()
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), " flags")
	return version
}

// machine says where it was compared.
func machine() string {
	return fmt.Sprintf("%s, %d cores, %s of memory, Linux %s, load %s at the start",
		field("/proc/cpuinfo", "model name"), runtime.NumCPU(), memory(), line("/proc/sys/kernel/osrelease"), loadAverage())
}

// field returns the value of "name : value" in a file of /proc.
func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if key, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func line(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

func memory() string {
	kib, err := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 10, 64)
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.1f GiB", float64(kib)/(1<<20))
}

func loadAverage() string {
	one, _, _ := strings.Cut(line("/proc/loadavg"), " ")
	return one
}

// load watches how much processor time others take while we measure.
type load struct {
	begin     time.Time
	all, ours time.Duration
}

func startLoad() load { return load{time.Now(), allBusy(), ownBusy()} }

// elsewhere returns the share of all processors that others used since the start;
// more is what was used by those that are measured and still run.
func (l load) elsewhere(more time.Duration) float64 {
	room := time.Since(l.begin) * time.Duration(runtime.NumCPU())
	others := (allBusy() - l.all) - (ownBusy() - l.ours) - more
	return max(0, float64(others)/float64(room))
}

// allBusy is the processor time that the machine spent on anything, from the
// first line of /proc/stat (proc_stat(5)): user nice system idle iowait irq
// softirq steal, in hundredths of a second.
func allBusy() time.Duration {
	first, _, _ := strings.Cut(line("/proc/stat"), "\n")
	var sum time.Duration
	for i, f := range strings.Fields(first) {
		if n, err := strconv.ParseInt(f, 10, 64); err == nil && i <= 8 && i != 4 && i != 5 {
			sum += time.Duration(n) * (time.Second / 100)
		}
	}
	return sum
}

// ownBusy is the processor time of this process and of those it waited for.
func ownBusy() (sum time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}
