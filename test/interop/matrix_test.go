package interop_test

import (
	"testing"

	"github.com/cryptctl/cryptctl/luks/kdf"
)

func shapes() (all []shape) {
	for _, kind := range []kdf.Kind{kdf.Argon2id, kdf.Argon2i, kdf.PBKDF2} {
		for _, bits := range []int{256, 512} {
			for _, sector := range []int{512, 4096} {
				for _, metadata := range []int64{16 << 10, 64 << 10, 128 << 10} {
					all = append(all, shape{kind, bits, sector, metadata})
				}
			}
		}
	}
	return all
}

// TestTheirs works on volumes that cryptsetup made.
func TestTheirs(t *testing.T) {
	for _, s := range shapes() {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			d := theirs(t, s, "alpha")
			d.accepted("cryptsetup formatted")
			d.sameKey("cryptsetup formatted", 0)
			exchange(d)
			d.replaceHere(0, "golf")
			d.opens("at the end")
			d.removeThere(0)
		})
	}
}

// TestOurs works on volumes that our engine made.
func TestOurs(t *testing.T) {
	for _, s := range shapes() {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			d := ours(t, s, "alpha")
			d.accepted("we formatted")
			d.sameKey("we formatted", 0)
			exchange(d)
			d.changeThere(0, "golf", false)
			d.opens("at the end")
			d.removeHere(0)
		})
	}
}

// exchange lets each side add keys, change what the other added, and remove what
// the other changed. It leaves slots 0 and 3.
func exchange(d *disk) {
	d.Helper()
	d.addHere(1, "bravo")
	d.addThere(2, "charlie")
	d.changeThere(1, "delta", true)
	d.replaceHere(2, "echo")
	d.removeHere(1)
	d.killThere(2)
	d.addHere(3, "foxtrot")
}
