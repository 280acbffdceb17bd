package machine

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Kernel is an installed kernel.
type Kernel struct {
	Version string // "6.1.0-56-cloud-amd64"
	Image   string // /boot/vmlinuz-VERSION
	Modules string // /lib/modules/VERSION
}

// FindKernel returns the newest installed kernel of Debian's package
// linux-image-cloud-amd64.
func FindKernel() (Kernel, error) {
	images, err := filepath.Glob("/boot/vmlinuz-*-cloud-amd64")
	if err != nil {
		return Kernel{}, err
	}
	slices.SortFunc(images, func(a, b string) int { return compareVersions(b, a) })
	for _, image := range images {
		version := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
		k := Kernel{version, image, filepath.Join("/lib/modules", version)}
		if _, err := os.Stat(filepath.Join(k.Modules, "modules.dep")); err == nil {
			return k, nil
		}
	}
	return Kernel{}, fmt.Errorf("no kernel below /boot: install the Debian package linux-image-cloud-amd64")
}

// compareVersions orders names by their numbers: "6.1.0-9" before "6.1.0-56".
func compareVersions(a, b string) int {
	return slices.Compare(numbers(a), numbers(b))
}

func numbers(s string) (out []int) {
	in := false
	for _, c := range s {
		digit := c >= '0' && c <= '9'
		if digit && !in {
			out = append(out, 0)
		}
		if digit {
			out[len(out)-1] = out[len(out)-1]*10 + int(c-'0')
		}
		in = digit
	}
	return out
}

// LoadOrder returns the files of the named modules and of all that they need,
// each after what it needs; modules.dep(5). A name that the kernel has built in
// is left out.
func (k Kernel) LoadOrder(names ...string) ([]string, error) {
	files, needs, err := k.dependencies()
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(k.Modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var order []string
	var add func(file string)
	add = func(file string) {
		// modules.dep lists what a module needs, directly or not, nearest first.
		for _, need := range slices.Backward(needs[file]) {
			add(need)
		}
		if !slices.Contains(order, file) {
			order = append(order, file)
		}
	}
	for _, name := range names {
		file, ok := files[moduleName(name)]
		switch {
		case ok:
			add(file)
		case !strings.Contains(string(builtin), "/"+name+".ko\n"):
			return nil, fmt.Errorf("kernel %s has no module %s", k.Version, name)
		}
	}
	for i, file := range order {
		if !strings.HasSuffix(file, ".ko") {
			return nil, fmt.Errorf("module %s is compressed, which is not provided for", file)
		}
		order[i] = filepath.Join(k.Modules, file)
	}
	return order, nil
}

// dependencies reads modules.dep: lines "kernel/a.ko: kernel/b.ko kernel/c.ko".
func (k Kernel) dependencies() (files map[string]string, needs map[string][]string, err error) {
	f, err := os.Open(filepath.Join(k.Modules, "modules.dep"))
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	files, needs = map[string]string{}, map[string][]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		file, rest, _ := strings.Cut(s.Text(), ":")
		name, _, _ := strings.Cut(filepath.Base(file), ".")
		files[moduleName(name)] = file
		needs[file] = strings.Fields(rest)
	}
	return files, needs, s.Err()
}

// moduleName treats - and _ as the same, as modprobe does.
func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }
