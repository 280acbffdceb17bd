//go:build vm

package vm_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/test/vm/machine"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// TestLUKS1 opens volumes of the older format, which cryptsetup made, and
// compares what the kernel gets with what cryptsetup gives it.
func TestLUKS1(t *testing.T) {
	var disks []*machine.Disk
	for range 4 {
		disks = append(disks, machine.NewDisk(t, diskSize))
	}
	b := &bench{boot(t, machine.Config{Disks: disks, Deadline: 5 * time.Minute}), 0, len(disks)}
	for _, bits := range []string{"256", "512"} {
		t.Run(bits, func(t *testing.T) {
			device := b.luksFormat(t, "--type", "luks1", "--cipher", "aes-xts-plain64", "--key-size", bits)
			for _, flags := range [][]string{nil, {"--readonly"}, {"--allow-discards", "--perf-no_read_workqueue"}, {"--disable-keyring"}} {
				t.Run(strings.Join(append(flags, "-"), ""), func(t *testing.T) { b.sameLUKS1(t, device, flags...) })
			}
			b.openedLUKS1(t, device)
		})
	}
	t.Run("detached", func(t *testing.T) {
		header := b.blank(t)
		data := b.luksFormat(t, "--type", "luks1", "--header", header)
		b.sameLUKS1(t, data, "--header", header)
	})
	b.empty(t)
	b.PowerOff()
}

// sameLUKS1 opens a volume with cryptsetup and with cryptctl and compares what
// the kernel got; each reads what the other wrote and closes what it opened.
func (b *bench) sameLUKS1(t *testing.T, device string, flags ...string) {
	t.Helper()
	const name, path = "old", "/dev/mapper/old"
	block := wire.Span{Path: path, Offset: 8192, Content: bytes.Repeat([]byte("sixteen bytes..."), 256)}
	readOnly := strings.Contains(strings.Join(flags, " "), "--readonly")

	b.feed(t, passphrase, append([]string{"cryptsetup", "open", "--key-file", "-", device, name}, flags...)...)
	theirs := b.loaded(t, name) + "\n" + b.described(t, name)
	if !readOnly {
		b.do(t, "pwrite", block, nil)
	}
	b.run(t, "cryptctl", "close", name)

	b.feed(t, passphrase, append([]string{"cryptctl", "open", "--key-file", "-", device, name}, flags...)...)
	if ours := b.loaded(t, name) + "\n" + b.described(t, name); ours != theirs {
		t.Errorf("we load\n%s\nand cryptsetup\n%s", ours, theirs)
	}
	if !strings.Contains(theirs, "CRYPT-LUKS1-") || strings.Contains(theirs, "logon") {
		t.Errorf("cryptsetup makes another mapping than it did: %s", theirs)
	}
	var got wire.Span
	b.do(t, "pread", wire.Span{Path: path, Offset: block.Offset, Length: len(block.Content)}, &got)
	if !bytes.Equal(got.Content, block.Content) {
		t.Error("our mapping does not read what cryptsetup's wrote")
	}
	b.run(t, "cryptsetup", "close", name)
}

// openedLUKS1 opens what is open already, and refuses what must not be opened.
func (b *bench) openedLUKS1(t *testing.T, device string) {
	t.Helper()
	open := []string{"cryptctl", "open", "--key-file", "-", device}
	b.feed(t, passphrase, append(open, "old")...)
	if said := b.feed(t, passphrase, append(open, "old")...); !strings.Contains(said, "is open already as /dev/mapper/old") {
		t.Errorf("the second open says: %s", said)
	}
	for _, c := range []struct{ word, name, says string }{
		{passphrase, "second", "used by mapping old"},
		{"wrong", "old", "no keyslot opens with this passphrase (tried 0)"},
	} {
		ran, err := b.Run(c.word, append(open, c.name)...)
		if err != nil {
			t.Fatal(err)
		}
		if ran.Code == 0 || !strings.Contains(ran.Err, c.says) {
			t.Errorf("open as %s: exit %d, %s; want: %s", c.name, ran.Code, ran.Err, c.says)
		}
	}
	b.run(t, "cryptctl", "close", "old")
}
