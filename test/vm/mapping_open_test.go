//go:build vm

package vm_test

import (
	"testing"

	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

func open(device, name string) wire.Activate {
	return wire.Activate{Device: device, Passphrase: passphrase, Options: mapping.Options{Name: name}}
}

// detached compares tables of a volume with its header elsewhere.
func (b *bench) detached(t *testing.T) {
	header, data := b.blank(t), b.blank(t)
	b.do(t, "format", wire.Format{Device: header, Detached: true, Passphrase: passphrase, SectorSize: 512}, nil)
	var m mapping.Mapping
	call := open(data, "apart")
	call.Header = header
	b.do(t, "activate", call, &m)
	ours := b.loaded(t, "apart")
	b.run(t, "cryptsetup", "close", "apart")
	b.feed(t, passphrase, "cryptsetup", "open", "--key-file", "-", "--header", header, data, "apart")
	if theirs := b.loaded(t, "apart"); ours != theirs || m.Table.Offset != 0 {
		t.Errorf("we load      %s\ncryptsetup   %s", ours, theirs)
	}
	b.close(t, "apart")
}

// existing activates what is there already.
func (b *bench) existing(t *testing.T) {
	const uuid = "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b"
	device, twin, other := b.volume(t, wire.Format{UUID: uuid}), b.volume(t, wire.Format{UUID: uuid}), b.volume(t, wire.Format{})
	b.refuse(t, wire.NotOpen, "not open", "status", wire.Mapping{Name: "vol"})
	mixed := open(device, "vol")
	mixed.KeyOf = other
	b.refuse(t, "", "not the key of the volume", "activate", mixed)
	b.empty(t)
	first := b.activate(t, device, mapping.Options{Name: "vol"})
	again := b.activate(t, device, mapping.Options{Name: "vol"})
	if !again.Existing || again.Number != first.Number || again.Table.String() != first.Table.String() {
		t.Errorf("the second activation gives another mapping: %+v, first %+v", again, first)
	}
	b.do(t, "status", wire.Mapping{Name: "vol", Device: device}, nil)
	b.refuse(t, wire.NameTaken, first.UUID, "status", wire.Mapping{Name: "vol", Device: other})
	b.refuse(t, wire.NameTaken, first.UUID, "activate", open(other, "vol"))
	b.refuse(t, wire.NameTaken, "of a volume with the same UUID", "activate", open(twin, "vol"))
	b.refuse(t, wire.Busy, "used by mapping vol", "activate", open(device, "second"))
	if b.exists(t, "/dev/mapper/second") {
		t.Error("/dev/mapper/second was made for a device in use")
	}
	readOnly := open(device, "vol")
	readOnly.Options.ReadOnly = true
	b.refuse(t, "", "mapped already, for writing", "activate", readOnly)
	b.run(t, "dmsetup", "suspend", "vol")
	b.refuse(t, "", "suspended", "activate", open(device, "vol"))
	b.run(t, "dmsetup", "resume", "vol")

	ours := b.described(t, "vol")
	b.run(t, "cryptsetup", "close", "vol")
	b.feed(t, passphrase, "cryptsetup", "open", "--key-file", "-", device, "vol")
	if theirs := b.described(t, "vol"); ours != theirs {
		t.Errorf("our mapping is    %s\ncryptsetup's is   %s", ours, theirs)
	}
	if m := b.activate(t, device, mapping.Options{Name: "vol"}); !m.Existing {
		t.Error("what cryptsetup opened is not recognised")
	}
	b.close(t, "vol")

	// Made by an activation that was killed before it had a table.
	b.run(t, "dmsetup", "create", "vol", "--notable", "--uuid", first.UUID)
	if m := b.activate(t, device, mapping.Options{Name: "vol"}); m.Existing {
		t.Error("an unfinished device counts as an open volume")
	}
	b.close(t, "vol")

	b.run(t, "dmsetup", "create", "errors", "--table", "0 8 error")
	b.refuse(t, "", "not an encrypted volume", "close", wire.Mapping{Name: "errors"})
	b.run(t, "dmsetup", "remove", "errors")
	b.refuse(t, wire.NotOpen, "", "close", wire.Mapping{Name: "vol"})
}

// nodes looks at what is below /dev: nothing but our code makes nodes there.
func (b *bench) nodes(t *testing.T) {
	device := b.volume(t, wire.Format{})
	b.do(t, "link", wire.File{Path: "/dev/mapper/vol", Content: []byte("../dm-99")}, nil) // stale
	m := b.activate(t, device, mapping.Options{Name: "vol"})
	right := func() {
		t.Helper()
		var s wire.Stat
		b.do(t, "stat", wire.File{Path: m.Path}, &s)
		if s.Device != m.Number || s.Size != m.Table.Sectors*512 {
			t.Errorf("%s leads to device %s of %d bytes, want %s of %d", m.Path, s.Device, s.Size, m.Number, m.Table.Sectors*512)
		}
	}
	right()
	b.do(t, "remove", wire.File{Path: m.Path}, nil)
	b.do(t, "remove", wire.File{Path: "/dev/dm-0"}, nil)
	b.do(t, "remove", wire.File{Path: "/dev/mapper/control"}, nil)
	b.activate(t, device, mapping.Options{Name: "vol"})
	right()
	b.close(t, "vol")

	b.do(t, "write", wire.File{Path: "/dev/mapper/vol", Content: []byte("a file")}, nil)
	b.refuse(t, "", "neither a link nor a device", "activate", open(device, "vol"))
	b.do(t, "remove", wire.File{Path: "/dev/mapper/vol"}, nil)
	b.empty(t)
}

// failures takes parts of the kernel away.
func (b *bench) failures(t *testing.T) {
	adiantum, plain := b.volume(t, wire.Format{Cipher: "xchacha12,aes-adiantum-plain64", KeySize: 32}), b.volume(t, wire.Format{})
	b.run(t, "rmmod", "adiantum")
	b.refuse(t, "", "does not know the cipher xchacha12,aes-adiantum-plain64", "activate", open(adiantum, "vol"))
	b.empty(t)
	b.run(t, "insmod", "/modules/adiantum.ko")
	b.activate(t, adiantum, mapping.Options{Name: "vol"})
	b.close(t, "vol")

	b.run(t, "rmmod", "dm_crypt")
	b.refuse(t, wire.NoDeviceMapper, "no target crypt", "activate", open(plain, "vol"))
	b.empty(t)
	b.run(t, "rmmod", "dm_mod")
	b.refuse(t, wire.NoDeviceMapper, "load the modules", "activate", open(plain, "vol"))
	b.refuse(t, wire.NoDeviceMapper, "load the modules", "status", wire.Mapping{Name: "vol"})
	b.refuse(t, wire.NoDeviceMapper, "load the modules", "close", wire.Mapping{Name: "vol"})
	b.run(t, "insmod", "/modules/dm-mod.ko")
	b.run(t, "insmod", "/modules/dm-crypt.ko")
	b.activate(t, plain, mapping.Options{Name: "vol"})
	b.close(t, "vol")
}
