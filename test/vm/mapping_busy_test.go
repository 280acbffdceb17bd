//go:build vm

package vm_test

import (
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// busy closes mappings that are in use: the error names each user.
func (b *bench) busy(t *testing.T) {
	device := b.volume(t, wire.Format{})
	m := b.activate(t, device, mapping.Options{Name: "vol"})
	refused := func(who string) {
		t.Helper()
		b.refuse(t, wire.Busy, "mapping vol is in use: "+who, "close", wire.Mapping{Name: "vol"})
	}
	b.run(t, "mkswap", m.Path)
	b.run(t, "swapon", m.Path)
	refused("used as swap")
	b.run(t, "swapoff", m.Path)

	b.run(t, "dmsetup", "create", "top", "--table", "0 8 linear "+m.Path+" 0")
	refused("used by mapping top")
	b.run(t, "dmsetup", "remove", "top")

	b.run(t, "mkfs.ext4", m.Path)
	mnt := wire.Mount{Source: m.Path, Target: "/mnt/a place", Type: "ext4"}
	b.do(t, "mount", mnt, nil)
	b.do(t, "mount", wire.Mount{Source: m.Path, Target: "/mnt/b", Type: "ext4"}, nil)
	refused("mounted on /mnt/a place, mounted on /mnt/b; release it first")
	b.do(t, "unmount", wire.Mount{Target: "/mnt/b"}, nil)

	// Mounted nowhere any more, but a file is open.
	file := wire.File{Path: "/mnt/a place/file"}
	b.do(t, "write", file, nil)
	b.do(t, "hold", file, nil)
	b.do(t, "unmount", wire.Mount{Target: mnt.Target, Lazy: true}, nil)
	refused("open in process 1 (init)")
	b.do(t, "release", file, nil)

	// Mounted where only a container sees it.
	stay, left := wire.File{Path: "/tmp/stay"}, make(chan struct{})
	b.do(t, "write", stay, nil)
	go func() {
		defer close(left)
		b.Run("", "unshare", "--mount", "sh", "-c", "mount "+m.Path+" /mnt/b && >/tmp/mounted && while test -e /tmp/stay; do sleep 0.1; done")
	}()
	for !b.exists(t, "/tmp/mounted") { // an open count would do too early: mount looks at the device first
		time.Sleep(20 * time.Millisecond)
	}
	refused("mounted on /mnt/b in the mount namespace of process ")
	b.do(t, "remove", stay, nil)
	<-left

	b.do(t, "hold", wire.File{Path: m.Path}, nil)
	refused("open in process 1 (init)")
	b.do(t, "release", wire.File{Path: m.Path}, nil)
	b.close(t, "vol")
}

// deferred closes mappings when their last user leaves.
func (b *bench) deferred(t *testing.T) {
	device := b.volume(t, wire.Format{})
	m := b.activate(t, device, mapping.Options{Name: "vol"})
	held := wire.File{Path: "/dev/dm-0"}
	later := wire.Mapping{Name: "vol", Deferred: true}
	is := func(deferred bool) {
		t.Helper()
		var now mapping.Mapping
		b.do(t, "status", wire.Mapping{Name: "vol"}, &now)
		if now.Deferred != deferred || b.exists(t, m.Path) == deferred {
			t.Errorf("deferred is %t, want %t; the node is there: %t", now.Deferred, deferred, b.exists(t, m.Path))
		}
	}

	b.do(t, "hold", held, nil)
	b.do(t, "close", later, nil)
	is(true)
	b.do(t, "cancel", wire.Mapping{Name: "vol"}, nil)
	is(false)
	b.do(t, "close", later, nil)
	is(true)
	if again := b.activate(t, device, mapping.Options{Name: "vol"}); !again.Existing || again.Deferred {
		t.Errorf("activated again, the deferred close stands: %+v", again)
	}
	is(false)
	b.do(t, "release", held, nil)
	is(false)

	b.do(t, "hold", held, nil)
	b.do(t, "close", later, nil)
	b.do(t, "release", held, nil)
	b.gone(t, m)

	b.activate(t, device, mapping.Options{Name: "vol"})
	b.do(t, "close", later, nil) // nobody uses it: closes at once
	b.gone(t, m)
	b.refuse(t, wire.NotOpen, "", "cancel", wire.Mapping{Name: "vol"})
}
