//go:build vm

package vm_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/test/vm/machine"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// TestOpen has cryptctl open and cryptctl close against cryptsetup.
func TestOpen(t *testing.T) {
	var disks []*machine.Disk
	for range 14 {
		disks = append(disks, machine.NewDisk(t, diskSize))
	}
	b := &bench{boot(t, machine.Config{Disks: disks, Deadline: 6 * time.Minute}), 0, len(disks)}
	t.Run("as cryptsetup", b.openAsCryptsetup)
	t.Run("of cryptsetup", b.openOfCryptsetup)
	t.Run("other flags", b.openOtherFlags)
	t.Run("configured", b.openConfigured)
	t.Run("again", b.openAgain)
	t.Run("in use", b.closeInUse)
	t.Run("detached", b.openDetached)
	b.empty(t)
	b.PowerOff()
}

// cryptctl runs the program, which must end with a code.
func (b *bench) cryptctl(t *testing.T, code int, stdin string, args ...string) wire.Ran {
	t.Helper()
	ran, err := b.Run(stdin, append([]string{"cryptctl"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	if ran.Code != code {
		t.Fatalf("cryptctl %s: exit %d, want %d\n%s%s", strings.Join(args, " "), ran.Code, code, ran.Out, ran.Err)
	}
	return ran
}

// fails runs cryptctl, which must end with a code and say something on stderr.
func (b *bench) fails(t *testing.T, code int, says, stdin string, args ...string) {
	t.Helper()
	if ran := b.cryptctl(t, code, stdin, args...); !strings.Contains(ran.Err, says) || ran.Out != "" {
		t.Errorf("cryptctl %s says %q on stderr and %q on stdout, want %q on stderr", strings.Join(args, " "), ran.Err, ran.Out, says)
	}
}

// opened opens a volume with cryptctl and returns what the kernel got.
func (b *bench) opened(t *testing.T, device, name string, flags ...string) string {
	t.Helper()
	b.cryptctl(t, 0, passphrase, append([]string{"open", device, name, "--key-file", "-"}, flags...)...)
	return b.loaded(t, name) + "\n" + b.described(t, name)
}

// sameOpened opens a volume with both tools by the same flags. Each closes what
// the other opened, and each reads what the other wrote.
func (b *bench) sameOpened(t *testing.T, device, name string, flags ...string) {
	t.Helper()
	node := "/dev/mapper/" + name
	header := wire.Span{Path: device, Length: 256 << 10}
	var before, after, got wire.Span
	b.do(t, "pread", header, &before)
	ours := b.opened(t, device, name, flags...)
	block := wire.Span{Path: node, Offset: 8192, Content: bytes.Repeat([]byte(fmt.Sprintf("%-16.16s", name)), 256)}
	b.do(t, "pwrite", block, nil)
	b.run(t, "cryptsetup", "close", name)

	b.feed(t, passphrase, append([]string{"cryptsetup", "open", "--type", "luks2", "--key-file", "-", device, name}, flags...)...)
	theirs := b.loaded(t, name) + "\n" + b.described(t, name)
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Errorf("%s %v: what cryptsetup opens (-) and what cryptctl opens (+):\n%s", device, flags, diff)
	}
	for _, flag := range flags {
		if word := strings.TrimPrefix(flag, "--perf-"); word != flag && !strings.Contains(ours, word) {
			t.Errorf("%s is not in the table: %s", flag, ours)
		}
	}
	b.do(t, "pread", wire.Span{Path: node, Offset: block.Offset, Length: len(block.Content)}, &got)
	if !bytes.Equal(got.Content, block.Content) {
		t.Errorf("%s %v: cryptsetup does not read what was written through our mapping", device, flags)
	}
	b.cryptctl(t, 0, "", "close", name)
	b.gone(t, &mapping.Mapping{Name: name, Path: node})
	b.do(t, "pread", header, &after)
	if !bytes.Equal(before.Content, after.Content) {
		t.Errorf("%s %v: the header was written", device, flags)
	}
}

// flagSets are none, discards, and all that are about speed, by the names that
// both tools have for them.
func flagSets() [][]string {
	return [][]string{nil, {"--allow-discards"}, arguments(mapping.Options{
		Flags: []mapping.Flag{mapping.NoReadWorkqueue, mapping.NoWriteWorkqueue, mapping.SameCPUCrypt, mapping.SubmitFromCryptCPUs},
	})}
}

// openAsCryptsetup goes through ciphers, sector sizes and flags.
func (b *bench) openAsCryptsetup(t *testing.T) {
	for i, cipher := range []string{"aes-xts-plain64", "xchacha12,aes-adiantum-plain64", "xchacha20,aes-adiantum-plain64"} {
		for _, sector := range []int{512, 4096} {
			f := wire.Format{Cipher: cipher, SectorSize: sector, KeySize: 64}
			if i > 0 {
				f.KeySize = 32
			}
			device := b.volume(t, f)
			t.Run(fmt.Sprintf("%s/%d", cipher, sector), func(t *testing.T) {
				t.Parallel() // two at a time keep both processors busy
				for _, flags := range flagSets() {
					b.sameOpened(t, device, fmt.Sprintf("open-%d-%d", i, sector), flags...)
				}
			})
		}
	}
}

// openOfCryptsetup has a volume that cryptsetup formatted.
func (b *bench) openOfCryptsetup(t *testing.T) {
	device := b.blank(t)
	b.feed(t, passphrase, "cryptsetup", "luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-",
		"--cipher", "xchacha12,aes-adiantum-plain64", "--key-size", "256", "--sector-size", "4096",
		"--keyslot-cipher", "aes-xts-plain64", "--keyslot-key-size", "512", device)
	for _, flags := range flagSets() {
		b.sameOpened(t, device, "theirs", flags...)
	}
}

// openOtherFlags has the key in the table, a read-only mapping, and the output.
func (b *bench) openOtherFlags(t *testing.T) {
	device := b.volume(t, wire.Format{})
	b.sameOpened(t, device, "vol", "--disable-keyring") // --no-keyring is the same flag
	ours := b.opened(t, device, "vol", "--readonly")
	b.cryptctl(t, 0, "", "close", "vol")
	b.feed(t, passphrase, "cryptsetup", "open", "--key-file", "-", "--readonly", device, "vol")
	if theirs := b.loaded(t, "vol") + "\n" + b.described(t, "vol"); ours != theirs {
		t.Errorf("read-only, we open %s\ncryptsetup %s", ours, theirs)
	}
	b.cryptctl(t, 0, "", "close", "vol")

	var out struct {
		Slot    int
		UUID    string
		Mapping mapping.Mapping
	}
	ran := b.cryptctl(t, 0, passphrase, "open", device, "vol", "--key-file", "-", "--json")
	if err := json.Unmarshal([]byte(ran.Out), &out); err != nil {
		t.Fatalf("%v: %s", err, ran.Out)
	}
	if out.Slot != 0 || out.Mapping.Path != "/dev/mapper/vol" || out.Mapping.Table.String() != b.loaded(t, "vol") ||
		!strings.Contains(out.Mapping.UUID, strings.ReplaceAll(out.UUID, "-", "")) {
		t.Errorf("open --json says %s", ran.Out)
	}
	b.cryptctl(t, 0, "", "close", "vol")

	b.fails(t, 5, "no keyslot opens with this passphrase (tried 0)", "wrong", "open", device, "vol", "--key-file", "-")
	b.fails(t, 1, "mapping vol: not open", "", "close", "vol")
	b.fails(t, 1, "mapping vol: not open", "", "close", "vol", "--deferred")
	b.fails(t, 1, "mapping vol: not open", "", "close", "vol", "--cancel-deferred")
}

const machineYAML = `apiVersion: v1alpha1
kind: VolumeConfig
name: EPHEMERAL
encryption:
  provider: luks2
  options: [no_read_workqueue, same_cpu_crypt]
  allowDiscards: true
  keys:
    - slot: 0
      static:
        passphrase: ` + passphrase + `
`

// openConfigured takes the name and the flags from a configuration.
func (b *bench) openConfigured(t *testing.T) {
	device := b.volume(t, wire.Format{})
	b.do(t, "write", wire.File{Path: "/tmp/machine.yaml", Content: []byte(machineYAML)}, nil)
	configured := []string{"open", device, "--file", "/tmp/machine.yaml", "--volume", "EPHEMERAL"}
	ran := b.cryptctl(t, 0, "", append(configured, "--perf-no_write_workqueue")...)
	if want := "as /dev/mapper/luks2-EPHEMERAL\n"; !strings.HasSuffix(ran.Out, want) {
		t.Errorf("it says %q, want %q", ran.Out, want)
	}
	ours := b.loaded(t, "luks2-EPHEMERAL")
	b.run(t, "cryptsetup", "close", "luks2-EPHEMERAL")
	b.feed(t, passphrase, "cryptsetup", "open", "--key-file", "-", "--allow-discards", "--perf-no_read_workqueue", "--perf-no_write_workqueue",
		"--perf-same_cpu_crypt", device, "luks2-EPHEMERAL")
	if theirs := b.loaded(t, "luks2-EPHEMERAL"); ours != theirs {
		t.Errorf("we load      %s\ncryptsetup   %s", ours, theirs)
	}
	b.cryptctl(t, 0, "", "close", "luks2-EPHEMERAL")
	b.cryptctl(t, 0, "", append(configured, "other")...)
	b.cryptctl(t, 0, "", "close", "other")
}

// openAgain opens what is open, and what is in use.
func (b *bench) openAgain(t *testing.T) {
	device, other := b.volume(t, wire.Format{}), b.volume(t, wire.Format{})
	first := b.opened(t, device, "vol")
	ran := b.cryptctl(t, 0, passphrase, "open", device, "vol", "--key-file", "-", "--allow-discards")
	if !strings.Contains(ran.Out, "is open already as /dev/mapper/vol") || !strings.HasPrefix(ran.Err, "note: the volume was open already, without the flag allow_discards;") {
		t.Errorf("opened again it says %q and %q", ran.Out, ran.Err)
	}
	if now := b.loaded(t, "vol") + "\n" + b.described(t, "vol"); now != first {
		t.Errorf("the second open made of %s\n%s", first, now)
	}
	b.fails(t, 1, "the name belongs to another mapping", passphrase, "open", other, "vol", "--key-file", "/nowhere")
	b.fails(t, 1, "used by mapping vol", passphrase, "open", device, "second", "--key-file", "-")
	b.cryptctl(t, 0, "", "close", "vol")
}

// closeInUse closes a mapping that is in use, at once and later.
func (b *bench) closeInUse(t *testing.T) {
	device := b.volume(t, wire.Format{})
	b.opened(t, device, "vol")
	held := wire.File{Path: "/dev/mapper/vol"}
	b.do(t, "hold", held, nil)
	b.fails(t, 1, "mapping vol is in use: open in process 1 (init); release it first", "", "close", "vol")
	b.cryptctl(t, 0, "", "close", "vol", "--deferred")
	if b.exists(t, held.Path) {
		t.Error("the name is there after a deferred close")
	}
	b.cryptctl(t, 0, "", "close", "vol", "--cancel-deferred")
	if !b.exists(t, held.Path) {
		t.Error("the name is not there after the deferred close was taken back")
	}
	b.cryptctl(t, 0, "", "close", "vol", "--deferred")
	b.do(t, "release", held, nil)
	b.gone(t, &mapping.Mapping{Name: "vol", Path: held.Path})
}

// openDetached has a header elsewhere, and one with the layout of such a header
// on the device of its data.
func (b *bench) openDetached(t *testing.T) {
	header, data := b.blank(t), b.blank(t)
	b.do(t, "format", wire.Format{Device: header, Detached: true, Passphrase: passphrase, SectorSize: 512}, nil)
	b.cryptctl(t, 0, passphrase, "open", data, "apart", "--header", header, "--key-file", "-")
	ours := b.loaded(t, "apart")
	b.run(t, "cryptsetup", "close", "apart")
	b.feed(t, passphrase, "cryptsetup", "open", "--key-file", "-", "--header", header, data, "apart")
	if theirs := b.loaded(t, "apart"); ours != theirs {
		t.Errorf("we load      %s\ncryptsetup   %s", ours, theirs)
	}
	b.cryptctl(t, 0, "", "close", "apart")

	b.fails(t, 1, "the data would lie over it", passphrase, "open", header, "over", "--key-file", "-")
	b.run(t, "cryptctl", "header", "backup", header, "/tmp/backup")
	b.fails(t, 1, "the data would lie over it", passphrase, "open", header, "over", "--header", "/tmp/backup", "--key-file", "-")
}
