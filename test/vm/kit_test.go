//go:build vm

package vm_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/test/vm/machine"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// image is what all machines boot. TestMain makes it; nobody changes it.
var image struct {
	kernel    machine.Kernel
	initramfs string
	// noded makes the initramfs of machines whose process 1 is a node daemon.
	noded func() (initramfs string, err error)
	// keyServer is a directory that kms init made; its authority is in noded.
	cryptctl, keyServer string
	// systemd makes the initramfs of machines with systemd's tools for volumes.
	systemd func() (initramfs string, err error)
	// signed makes the images that firmware starts.
	signed map[variant]func() (*bootImage, error)
}

// TestMain builds the image. Disks are in memory where there is room: file
// systems in the machine flush often.
func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	var fs unix.Statfs_t
	const shm = "/dev/shm"
	if os.Getenv("TMPDIR") == "" && unix.Statfs(shm, &fs) == nil && uint64(fs.Bsize)*fs.Bavail > 2<<30 {
		os.Setenv("TMPDIR", shm)
	}
	dir, err := os.MkdirTemp("", "vm-image-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = makeImage(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the image of the machines:", err)
		return 1
	}
	return m.Run()
}

// makeImage builds the programs under test and packs them with their judges.
func makeImage(dir string) (err error) {
	if image.kernel, err = machine.FindKernel(); err != nil {
		return err
	}
	guest, cryptctl := filepath.Join(dir, "guest"), filepath.Join(dir, "cryptctl")
	if err := errors.Join(build(guest, "./guest"), build(cryptctl, "../../cmd/cryptctl")); err != nil {
		return err
	}
	i := machine.Initramfs{
		Init: guest,
		Files: map[string]string{
			"/bin/cryptctl":    cryptctl,
			"/etc/mke2fs.conf": "/etc/mke2fs.conf",
		},
		Programs: []string{
			"cryptsetup", "dmsetup", "mkfs.ext4", "mkfs.xfs", "mkswap", "swapon", "swapoff", "insmod", "rmmod", "unshare", "sleep",
			"resize2fs", "xfs_growfs",
			"sh", "ls", "cat", "dmesg", "mount", "umount", // for people, in the shell
		},
		Modules: []string{
			"virtio_pci", "virtio_blk", "virtio_console",
			"dm-crypt", "ecb", "xts", "aesni-intel", // no modprobe in there: ciphers load beforehand
			"adiantum", "nhpoly1305", "chacha_generic",
			"algif_skcipher", // by which cryptsetup encrypts keyslot areas in ciphers that it has not itself
			"xfs",
		},
	}
	image.cryptctl, image.keyServer = cryptctl, filepath.Join(dir, "kms")
	makeLater(dir, i)
	image.initramfs = filepath.Join(dir, "initramfs")
	return i.WriteFile(image.initramfs, image.kernel)
}

// makeLater sets what makes the other images, for the tests that need them.
func makeLater(dir string, i machine.Initramfs) {
	noded := sync.OnceValues(func() (string, error) {
		path := filepath.Join(dir, "noded")
		return path, build(path, "../../examples/noded")
	})
	image.noded = sync.OnceValues(func() (path string, err error) {
		path = filepath.Join(dir, "initramfs-noded")
		i := withNoded(i)
		if i.Init, err = noded(); err != nil {
			return "", err
		}
		if err := makeKeyServer(&i); err != nil {
			return "", err
		}
		return path, i.WriteFile(path, image.kernel)
	})
	image.systemd = sync.OnceValues(func() (string, error) {
		path := filepath.Join(dir, "initramfs-systemd")
		return path, withSystemd(i).WriteFile(path, image.kernel)
	})
	image.signed = signedImages(dir, withNoded(i), noded)
}

// withNoded makes the guest program a child of another process 1.
func withNoded(i machine.Initramfs) machine.Initramfs {
	i.Files = maps.Clone(i.Files)
	i.Files["/bin/guest"] = i.Init
	return i
}

// build makes a static program.
func build(to, pkg string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOEXPERIMENT=runtimesecret")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// guest is a running machine.
type guest struct{ *machine.Machine }

// start starts a machine with these disks.
func start(t *testing.T, config machine.Config) *guest {
	t.Helper()
	if config.Kernel = image.kernel; config.Initramfs == "" {
		config.Initramfs = image.initramfs
	}
	return &guest{machine.Start(t, config)}
}

// boot starts a machine with these disks and waits for the guest program.
func boot(t *testing.T, config machine.Config) *guest {
	t.Helper()
	g := start(t, config)
	t.Logf("booted in %s", g.Ready())
	return g
}

// do asks for an act that must succeed.
func (g *guest) do(t *testing.T, act string, args, result any) {
	t.Helper()
	if err := g.Call(act, args, result); err != nil {
		t.Fatalf("%+v: %v", args, err)
	}
}

// refuse asks for an act that must fail, with an error of that kind which
// contains the text.
func (g *guest) refuse(t *testing.T, kind wire.Kind, text, act string, args any) {
	t.Helper()
	err := g.Call(act, args, nil)
	var e *machine.Error
	switch {
	case err == nil:
		t.Fatalf("%s %+v succeeded", act, args)
	case !errors.As(err, &e):
		t.Fatal(err)
	case e.Kind != kind || !strings.Contains(e.Text, text):
		t.Fatalf("%s %+v failed with kind %q: %s\nwant kind %q and: %s", act, args, e.Kind, e.Text, kind, text)
	}
	t.Logf("refused: %s", e.Text)
}

// run runs a program that must succeed and returns what it printed.
func (g *guest) run(t *testing.T, argv ...string) string {
	t.Helper()
	return g.feed(t, "", argv...)
}

// feed is run with an input.
func (g *guest) feed(t *testing.T, stdin string, argv ...string) string {
	t.Helper()
	ran, err := g.Run(stdin, argv...)
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(argv, " "), err)
	}
	if ran.Code != 0 {
		t.Fatalf("%s: exit %d\n%s%s", strings.Join(argv, " "), ran.Code, ran.Out, ran.Err)
	}
	return strings.TrimSpace(ran.Out)
}

// exists reports whether a path is there, be it a link that leads nowhere.
func (g *guest) exists(t *testing.T, path string) bool {
	t.Helper()
	err := g.Call("stat", wire.File{Path: path}, nil)
	var e *machine.Error
	if err != nil && !(errors.As(err, &e) && e.Kind == wire.NotThere) {
		t.Fatal(err)
	}
	return err == nil
}

const passphrase = "correct horse"

func (g *guest) activate(t *testing.T, device string, options mapping.Options) *mapping.Mapping {
	t.Helper()
	var m mapping.Mapping
	g.do(t, "activate", wire.Activate{Device: device, Passphrase: passphrase, Options: options}, &m)
	return &m
}

func (g *guest) close(t *testing.T, name string) {
	t.Helper()
	var m mapping.Mapping
	g.do(t, "status", wire.Mapping{Name: name}, &m)
	g.do(t, "close", wire.Mapping{Name: name}, nil)
	g.gone(t, &m)
}

// gone fails when a mapping is there, or its node. The kernel runs deferred
// closes a moment later, so they are waited for.
func (g *guest) gone(t *testing.T, m *mapping.Mapping) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := g.Call("status", wire.Mapping{Name: m.Name}, nil)
		var e *machine.Error
		if errors.As(err, &e) && e.Kind == wire.NotOpen {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("mapping %s is still there (%v)", m.Name, err)
			break
		}
	}
	if g.exists(t, m.Path) {
		t.Errorf("%s is still there", m.Path)
	}
}

// empty fails when the kernel has any mapping or volume key.
func (g *guest) empty(t *testing.T) {
	t.Helper()
	if out := g.run(t, "dmsetup", "ls"); out != "No devices found" {
		t.Errorf("mappings are left: %s", out)
	}
	if out := g.run(t, "ls", "/dev/mapper"); out != "control" {
		t.Errorf("nodes are left below /dev/mapper: %s", out)
	}
	if keys := g.keys(t); keys != "" {
		t.Errorf("keys are left in the kernel:\n%s", keys)
	}
}

// keys returns the lines of /proc/keys about volume keys. The kernel collects
// what was let go of a moment later, so it is waited for.
func (g *guest) keys(t *testing.T) string {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var f wire.File
		g.do(t, "read", wire.File{Path: "/proc/keys"}, &f)
		var found []string
		for line := range strings.Lines(string(f.Content)) {
			if strings.Contains(line, "cryptsetup:") || strings.Contains(line, " cryptctl") {
				found = append(found, line)
			}
		}
		if len(found) == 0 || time.Now().After(deadline) {
			return strings.Join(found, "")
		}
	}
}
