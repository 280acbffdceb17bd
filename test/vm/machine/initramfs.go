package machine

import (
	"bufio"
	"bytes"
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
	Modules  []string          // kernel modules; they come with what they need
}

// WriteFile writes the initramfs for a kernel. It is not compressed: unpacking
// takes an emulated processor longer than reading.
func (i Initramfs) WriteFile(path string, k Kernel) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = i.write(w, k)
	if err == nil {
		err = w.Flush()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
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

// addProgram adds a program as /bin/NAME and the libraries that ldd names.
func addProgram(files map[string]string, name string) error {
	path, err := FindProgram(name)
	if err != nil {
		return err
	}
	files["/bin/"+name] = path
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
