package machine

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// Initramfs says what the machine boots into.
type Initramfs struct {
	Init     string            // the static program that runs as /init
	Files    map[string]string // path in the machine -> path here
	Programs []string          // names of installed programs; they come with their libraries
	Loaded   []string          // files that programs load themselves, each at its own path, with their libraries
	Modules  []string          // kernel modules; they come with what they need
	// Compressed is for machines that start by firmware, which hashes every byte
	// three times and slowly. For others unpacking takes longer than reading.
	Compressed bool
}

// WriteFile writes the initramfs for a kernel.
func (i Initramfs) WriteFile(path string, k Kernel) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	buffer := bufio.NewWriterSize(f, 1<<20)
	if i.Compressed {
		w := gzip.NewWriter(buffer)
		err = errors.Join(i.write(w, k), w.Close())
	} else {
		err = i.write(buffer, k)
	}
	if err := errors.Join(err, buffer.Flush(), f.Close()); err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	return nil
}

func (i Initramfs) write(w io.Writer, k Kernel) error {
	c := newCpio(w)
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "etc", "mnt"} {
		c.dir(dir)
	}
	c.char("dev/console", 5, 1) // for what /init prints before it mounts /dev
	if err := copyIn(c, "/init", i.Init); err != nil {
		return err
	}
	files := map[string]string{}
	for to, from := range i.Files {
		files[to] = from
	}
	for _, name := range i.Programs {
		if err := addProgram(files, name); err != nil {
			return err
		}
	}
	for _, path := range i.Loaded {
		files[path] = path
		if err := addLibraries(files, path); err != nil {
			return err
		}
	}
	for _, to := range slices.Sorted(maps.Keys(files)) {
		if err := copyIn(c, to, files[to]); err != nil {
			return err
		}
	}
	if err := addModules(c, k, i.Modules); err != nil {
		return err
	}
	return c.close()
}

func copyIn(c *cpio, to, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	c.file(to, int(info.Mode().Perm()), content)
	return nil
}

// FindProgram returns the path of an installed program.
func FindProgram(name string) (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin", "/usr/bin", "/bin") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: test/vm/packages.txt lists the packages that are needed", name)
}

// addProgram adds a program as /bin/NAME, with its libraries.
func addProgram(files map[string]string, name string) error {
	path, err := FindProgram(name)
	if err != nil {
		return err
	}
	files["/bin/"+name] = path
	return addLibraries(files, path)
}

// addLibraries adds what ldd names.
func addLibraries(files map[string]string, path string) error {
	out, err := exec.Command("ldd", path).CombinedOutput()
	if bytes.Contains(out, []byte("not a dynamic executable")) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ldd %s: %w: %s", path, err, out)
	}
	for line := range strings.Lines(string(out)) {
		for _, field := range strings.Fields(line) {
			if strings.HasPrefix(field, "/") {
				files[field] = field
			}
		}
	}
	return nil
}

func addModules(c *cpio, k Kernel, names []string) error {
	order, err := k.LoadOrder(names...)
	if err != nil {
		return err
	}
	var list strings.Builder
	for _, from := range order {
		to := "/modules/" + filepath.Base(from)
		if err := copyIn(c, to, from); err != nil {
			return err
		}
		fmt.Fprintln(&list, to)
	}
	c.file(wire.ModuleList, 0o644, []byte(list.String()))
	return nil
}
