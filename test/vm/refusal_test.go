//go:build vm

package vm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/disk"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/meta"
	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/test/vm/machine"
)

// refusal is a disk that somebody has tampered with, and what the node must say.
type refusal struct {
	name   string
	tamper func(t *testing.T, d *nodeDisk)
	phase  node.Phase
	volume string // that is refused; the others come up
	reason string
	second []disk.Spec // partitions of a second disk
}

func refusals() []refusal {
	plainState := map[meta.Tag]string{9: "null", 193: ""}
	return []refusal{
		{name: "another LUKS volume", volume: "EPHEMERAL", reason: "volume key is another", tamper: impostor},
		{name: "plain ext4", volume: "EPHEMERAL", reason: "holds something else: an ext", tamper: madeBy("EPHEMERAL", "mkfs.ext4", "-q", "-F")},
		{name: "NTFS", volume: "EPHEMERAL", reason: "holds something else: an NTFS", tamper: madeBy("EPHEMERAL", "mkfs.ntfs", "-q", "-Q", "-F")},
		{name: "null cipher", volume: "EPHEMERAL", reason: "cipher_null", tamper: nullCipher},
		{name: "empty, and it was not", volume: "EPHEMERAL", reason: "is empty", tamper: emptied},
		{
			name: "two partitions labelled STATE", phase: node.Failed, reason: "several partitions have the label",
			second: []disk.Spec{{Label: "STATE", Size: 20 << 20}},
		},
		{name: "both copies of META damaged", phase: node.Failed, reason: "copy 2", tamper: damaged(0, 256<<10)},
		{
			name: "STATE to plain in META", phase: node.Failed, volume: "STATE", reason: "holds something else: a LUKS2 header",
			tamper: func(t *testing.T, d *nodeDisk) { d.setTags(t, plainState) },
		},
		{
			name: "STATE to plain in META, and on the disk", phase: node.Failed, reason: "META says that STATE is not encrypted, and it was",
			tamper: func(t *testing.T, d *nodeDisk) {
				d.setTags(t, plainState)
				madeBy("STATE", "mkfs.ext4", "-q", "-F")(t, d)
			},
		},
	}
}

// impostor puts a volume in the place of EPHEMERAL that has its label, its UUID
// and a key that opens it.
func impostor(t *testing.T, d *nodeDisk) {
	d.with(t, "EPHEMERAL", func(dev luks.Device) error {
		was, err := luks.Read(dev)
		if err != nil {
			return err
		}
		wipe(t, dev)
		key := luks.NewVolumeKey(luks.DefaultVolumeKeySize)
		defer key.Wipe()
		pass := secret.Copy([]byte("ephemeral word"))
		defer pass.Wipe()
		sealed, err := key.Seal(context.Background(), pass, kdf.Light())
		if err != nil {
			return err
		}
		_, err = luks.Format(dev, key, luks.FormatOptions{UUID: was.UUID(), Label: was.Label()}, luks.AddKeyslot(0, sealed, nil))
		return err
	})
}

func wipe(t *testing.T, dev luks.Device) {
	t.Helper()
	if _, err := dev.WriteAt(make([]byte, dev.Size()), 0); err != nil {
		t.Fatal(err)
	}
}

func emptied(t *testing.T, d *nodeDisk) {
	d.with(t, "EPHEMERAL", func(dev luks.Device) error { wipe(t, dev); return nil })
}

// madeBy has a program make a file system on a partition.
func madeBy(label, program string, args ...string) func(*testing.T, *nodeDisk) {
	return func(t *testing.T, d *nodeDisk) {
		path, err := machine.FindProgram(program)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "fs")
		d.with(t, label, func(dev luks.Device) error {
			if err := os.WriteFile(file, make([]byte, dev.Size()), 0o600); err != nil {
				return err
			}
			if out, err := exec.Command(path, append(args, file)...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", program, err, out)
			}
			made, err := os.ReadFile(file)
			if err == nil {
				_, err = dev.WriteAt(made, 0)
			}
			return err
		})
	}
}

// nullCipher edits a header as one does who wants the data to be written in clear:
// the checksums, which have no key, are right.
func nullCipher(t *testing.T, d *nodeDisk) {
	d.with(t, "EPHEMERAL", func(dev luks.Device) error {
		h, err := luks.Read(dev)
		if err != nil {
			return err
		}
		size := int(h.MetadataSize())
		for _, at := range []int{0, size} {
			// LUKS2 On-Disk Format Specification, 2.1: 4096 bytes of binary header,
			// the checksum at 448 over all with itself zeroed; then JSON.
			part := make([]byte, size)
			if _, err := dev.ReadAt(part, int64(at)); err != nil {
				return err
			}
			segments := bytes.Index(part, []byte(`"segments"`))
			from := []byte(`"encryption":"aes-xts-plain64"`)
			to := []byte(`"encryption":"cipher_null-ecb"`)
			edited := append(bytes.Clone(part[:segments]), bytes.Replace(part[segments:], from, to, 1)...)
			if bytes.Equal(edited, part) || len(edited) != len(part) {
				return fmt.Errorf("the header was not edited")
			}
			clear(edited[448 : 448+64])
			sum := sha256.Sum256(edited)
			copy(edited[448:], sum[:])
			if _, err := dev.WriteAt(edited, int64(at)); err != nil {
				return err
			}
		}
		return nil
	})
}

// damaged flips a byte of META at each offset.
func damaged(offsets ...int64) func(*testing.T, *nodeDisk) {
	return func(t *testing.T, d *nodeDisk) {
		d.with(t, "META", func(dev luks.Device) error {
			for _, at := range offsets {
				b := make([]byte, 1)
				if _, err := dev.ReadAt(b, at+8); err != nil {
					return err
				}
				if _, err := dev.WriteAt([]byte{b[0] ^ 1}, at+8); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// TestRefusals boots disks that were tampered with. The reason is said, nothing
// of what is refused is mounted or mapped, and not a byte of it is written.
func TestRefusals(t *testing.T) {
	t.Parallel()
	d := newNodeDisk(t)
	g := bootNode(t, d.Disk, node.Maintenance)
	g.configure(t, machineConfig{state: keySet{0: byNodeID}, ephemeral: keySet{0: "ephemeral word"}}, node.Auto)
	g.open(t, true, "STATE", "EPHEMERAL")
	g.put(t, "/var/file")
	for _, dir := range []string{"/var", "/system/state"} { // so that a mount has nothing to write
		g.run(t, "umount", dir)
	}
	g.PowerOff()

	cases := refusals()
	disks := make([]*nodeDisk, len(cases))
	seconds := make([]string, len(cases))
	config := machine.Config{Args: []string{"-uuid", nodeUUID}, Deadline: 5 * time.Minute}
	for i, c := range cases {
		disks[i] = d.copy(t)
		if c.tamper != nil {
			c.tamper(t, disks[i])
		}
		config.Disks = append(config.Disks, disks[i].Disk)
		if c.second != nil {
			path := filepath.Join(t.TempDir(), "second")
			if _, err := disk.Create(path, 24<<20, c.second); err != nil {
				t.Fatal(err)
			}
			config.Disks = append(config.Disks, &machine.Disk{Path: path})
			seconds[i] = fmt.Sprintf(",/dev/vd%c", 'a'+len(config.Disks)-1)
		}
	}
	m := boot(t, config)
	at := 0
	for i, c := range cases {
		device := fmt.Sprintf("/dev/vd%c", 'a'+at)
		if at++; seconds[i] != "" {
			at++
		}
		t.Run(c.name, func(t *testing.T) { m.refused(t, c, disks[i], device+seconds[i]) })
	}
	m.empty(t)
	m.PowerOff()
	t.Run("META damaged, in a daemon", func(t *testing.T) { damagedMeta(t, d) })
}

// refused boots a disk and looks at what became of it.
func (g *guest) refused(t *testing.T, c refusal, d *nodeDisk, devices string) {
	parts := []string{"META", "STATE", "EPHEMERAL"}
	if c.phase == "" {
		parts = []string{c.volume} // the others are in use
	}
	before := d.sum(t, parts...)
	s, ran := g.bootDisk(t, devices)
	want, code := node.Running, 0
	if c.phase != "" {
		want, code = c.phase, 1
	}
	if s.Phase != want || ran.Code != code {
		t.Errorf("the node is %s (%s), exit code %d; want %s, %d", s.Phase, s.Reason, ran.Code, want, code)
	}
	said := s.Reason
	if c.volume != "" {
		v := volumeOf(t, s, c.volume)
		said += strings.Join(v.Errors, "\n")
		if v.Phase != node.VolumeRefused || v.Dir != "" {
			t.Errorf("%s is not refused: %+v", c.volume, v)
		}
	}
	if !strings.Contains(said, c.reason) || code != 0 && !strings.Contains(ran.Err, c.reason) {
		t.Errorf("the status says %q, and standard error\n%s\nwant %q", said, ran.Err, c.reason)
	}
	t.Logf("refused: %s", said)
	g.notInUse(t, c)
	g.shut(t)
	if d.sum(t, parts...) != before {
		t.Errorf("something of %s was written", strings.Join(parts, ", "))
	}
}

// notInUse fails when what is refused is mapped or mounted.
func (g *guest) notInUse(t *testing.T, c refusal) {
	t.Helper()
	mounts, maps := g.run(t, "cat", "/proc/mounts"), g.run(t, "dmsetup", "ls")
	unwanted := []string{"/r/var", "luks2-EPHEMERAL"}
	if c.phase != "" {
		unwanted = []string{" /r/", "luks2-"}
	}
	if slices.ContainsFunc(unwanted, func(s string) bool { return strings.Contains(mounts+maps, s) }) {
		t.Errorf("something is mapped or mounted:\n%s\n%s", maps, mounts)
	}
}

// damagedMeta boots a node whose META has one sound copy: it comes up and says so.
// Without any it stays down, and answers.
func damagedMeta(t *testing.T, d *nodeDisk) {
	damaged(0)(t, d)
	g := bootNode(t, d.Disk, node.Running)
	s := g.open(t, false, "STATE", "EPHEMERAL")
	g.kept(t, "/var/file")
	if !slices.ContainsFunc(s.Notices, func(n string) bool { return strings.Contains(n, "copy 1") }) {
		t.Errorf("nothing is said of the damaged copy: %q", s.Notices)
	}
	g.PowerOff()

	damaged(256<<10)(t, d)
	before := d.sum(t)
	g = bootNode(t, d.Disk, node.Failed)
	if s := g.status(t); !strings.Contains(s.Reason, "both copies of META are damaged") {
		t.Errorf("the reason is %q", s.Reason)
	}
	g.empty(t)
	g.PowerOff()
	if d.sum(t) != before {
		t.Error("the disk was written")
	}
}
