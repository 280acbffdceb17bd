//go:build vm

package vm_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// loaded is the table that the kernel has, as dmsetup shows it.
func (b *bench) loaded(t *testing.T, name string) string {
	t.Helper()
	return b.run(t, "dmsetup", "table", "--showkeys", name)
}

// described is what else the kernel has of a mapping.
func (b *bench) described(t *testing.T, name string) string {
	t.Helper()
	return b.run(t, "dmsetup", "info", "--columns", "--noheadings", "--options", "uuid,readonly,suspended", name)
}

// arguments turns options into those of cryptsetup.
func arguments(o mapping.Options) []string {
	var args []string
	for _, f := range o.Flags {
		if f == mapping.AllowDiscards {
			args = append(args, "--allow-discards")
		} else {
			args = append(args, "--perf-"+string(f))
		}
	}
	if o.ReadOnly {
		args = append(args, "--readonly")
	}
	if o.NoKeyring {
		args = append(args, "--disable-keyring")
	}
	return args
}

// same opens a volume with our code and with cryptsetup, compares what the
// kernel got, has each read what was written through the other, and each close
// what the other opened.
func (b *bench) same(t *testing.T, device string, o mapping.Options, extra ...string) {
	t.Helper()
	m := b.activate(t, device, o)
	ours := b.loaded(t, o.Name)
	if o.NoKeyring {
		if shown := m.Table.String(); len(shown) != len(ours) {
			t.Errorf("the table of Activate differs from that of dmsetup:\n%s", cmp.Diff(shown, ours))
		}
	} else if diff := cmp.Diff(m.Table.String(), ours); diff != "" {
		t.Errorf("the table of Activate (-) differs from that of dmsetup (+):\n%s", diff)
	}
	block := wire.Span{Path: m.Path, Offset: 4096, Content: bytes.Repeat([]byte(fmt.Sprintf("%16.16x", len(t.Name()))), 256)}
	if !o.ReadOnly {
		b.do(t, "pwrite", block, nil)
	}
	b.run(t, "cryptsetup", "close", o.Name)
	b.gone(t, m)

	args := append([]string{"cryptsetup", "open", "--type", "luks2", "--key-file", "-"}, extra...)
	b.feed(t, passphrase, append(args, device, o.Name)...)
	if diff := cmp.Diff(b.loaded(t, o.Name), ours); diff != "" {
		t.Errorf("what cryptsetup loads (-) and what we load (+):\n%s", diff)
	}
	if !o.ReadOnly {
		var got wire.Span
		b.do(t, "pread", wire.Span{Path: block.Path, Offset: block.Offset, Length: len(block.Content)}, &got)
		if !bytes.Equal(got.Content, block.Content) {
			t.Error("cryptsetup's mapping does not read what ours wrote")
		}
	}
	b.close(t, o.Name)
}

// tables compares tables over all ciphers, sector sizes and flags, with the
// keyring and without.
func (b *bench) tables(t *testing.T) {
	options := []mapping.Options{{}}
	for _, f := range mapping.Flags() {
		if f != mapping.HighPriority { // neither this kernel nor this cryptsetup knows it
			options = append(options, mapping.Options{Flags: []mapping.Flag{f}})
		}
	}
	for i, cipher := range []string{"aes-xts-plain64", "xchacha12,aes-adiantum-plain64", "xchacha20,aes-adiantum-plain64"} {
		for _, sector := range []int{512, 4096} {
			f := wire.Format{Cipher: cipher, SectorSize: sector, KeySize: 64}
			if i > 0 {
				f.KeySize = 32
			}
			device := b.volume(t, f)
			name := fmt.Sprintf("same-%d-%d", i, sector)
			t.Run(fmt.Sprintf("%s/%d", cipher, sector), func(t *testing.T) {
				t.Parallel() // two at a time keep both processors busy
				for _, o := range options {
					for _, o.NoKeyring = range []bool{false, true} {
						o.Name = name
						t.Run(strings.Join(append(arguments(o), "-"), ""), func(t *testing.T) { b.same(t, device, o, arguments(o)...) })
					}
				}
			})
		}
	}
}

// mixed compares tables of several flags at once, of read-only mappings, and of
// volumes whose headers ask for flags.
func (b *bench) mixed(t *testing.T) {
	device := b.volume(t, wire.Format{})
	for _, o := range []mapping.Options{
		{Flags: []mapping.Flag{mapping.NoWriteWorkqueue, mapping.AllowDiscards, mapping.SubmitFromCryptCPUs, mapping.NoReadWorkqueue, mapping.SameCPUCrypt}},
		{ReadOnly: true},
	} {
		o.Name = "same"
		b.same(t, device, o, arguments(o)...)
	}
	device = b.volume(t, wire.Format{Flags: []string{"allow-discards", "no-read-workqueue", "submit-from-crypt-cpus", "no-journal"}})
	for _, o := range []mapping.Options{{}, {Flags: []mapping.Flag{mapping.SameCPUCrypt, mapping.AllowDiscards}}} {
		o.Name = "same"
		b.same(t, device, o, arguments(o)...)
	}

	m := b.activate(t, device, mapping.Options{Name: "fast", Flags: []mapping.Flag{mapping.HighPriority}})
	if !slices.Contains(m.Dropped, mapping.HighPriority) || slices.Contains(m.Table.Flags, mapping.HighPriority) {
		t.Errorf("dm-crypt of Linux 6.1 does not know high_priority, but dropped is %q and the table has %q", m.Dropped, m.Table.Flags)
	}
	b.close(t, "fast")
}

// foreign compares tables of volumes that cryptsetup formatted.
func (b *bench) foreign(t *testing.T) {
	for _, args := range [][]string{
		{"--cipher", "aes-xts-plain64", "--key-size", "256", "--sector-size", "512", "--offset", "8192"},
		{
			"--cipher", "xchacha12,aes-adiantum-plain64", "--key-size", "256", "--sector-size", "4096",
			"--keyslot-cipher", "aes-xts-plain64", "--keyslot-key-size", "512", // would be Adiantum too
		},
	} {
		device := b.blank(t)
		format := []string{"cryptsetup", "luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-"}
		b.feed(t, passphrase, append(append(format, args...), device)...)
		b.same(t, device, mapping.Options{Name: "same"})
	}
}
