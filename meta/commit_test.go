package meta_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/luks/lukstest"
	"github.com/cryptctl/cryptctl/meta"
)

// TestBytes: what is written is, byte for byte, what was built by hand.
func TestBytes(t *testing.T) {
	legacy := legacyOf(entry{2, "two"}, entry{6, "legacy"}, entry{7, ""})
	strange := append(garbage(512), legacy...)
	middle := func(image []byte) []byte {
		copy(image[2*copyLength:legacyStart], garbage(legacyStart-2*copyLength))
		return image
	}
	tests := []struct {
		name    string
		before  []byte
		changes content
		want    []byte
	}{
		{"first value", imageOf(nil, nil, nil), content{9: "null"}, twice(entry{9, "null"})},
		{"ascending order", twice(entry{200, "c"}, entry{7, "b"}), content{6: "a", 255: "d"}, twice(entry{6, "a"}, entry{7, "b"}, entry{200, "c"}, entry{255, "d"})},
		{"replaced", twice(entry{6, "a longer one"}, entry{7, "b"}), content{6: "a"}, twice(entry{6, "a"}, entry{7, "b"})},
		{"deleted", twice(entry{6, "a"}, entry{7, "b"}), content{6: ""}, twice(entry{7, "b"})},
		{"last one deleted", twice(entry{6, "a"}), content{6: ""}, twice()},
		{"largest value", twice(entry{6, "a"}), content{6: strings.Repeat("x", 262096)}, twice(entry{6, strings.Repeat("x", 262096)})},
		{"all tags", imageOf(nil, nil, nil), everyTag(), twice(everyEntry()...)},
		{"unused part untouched", middle(twice(entry{6, "a"})), content{6: "b"}, middle(twice(entry{6, "b"}))},
		{"damaged copy 1", imageOf(garbage(copyLength), copyOf(entry{6, "a"}), nil), content{7: "b"}, twice(entry{6, "a"}, entry{7, "b"})},
		{"damaged copy 2", imageOf(copyOf(entry{6, "a"}), garbage(copyLength), nil), content{7: "b"}, twice(entry{6, "a"}, entry{7, "b"})},

		{"legacy untouched by a set", imageOf(nil, nil, strange), content{6: "new"}, imageOf(copyOf(entry{6, "new"}), copyOf(entry{6, "new"}), strange)},
		{"legacy untouched by another delete", imageOf(copyOf(entry{9, "x"}), copyOf(entry{9, "x"}), legacy), content{9: ""}, imageOf(copyOf(), copyOf(), legacy)},
		{"legacy garbage untouched", imageOf(copyOf(), copyOf(), garbage(1024)), content{6: "x", 9: ""}, imageOf(copyOf(entry{6, "x"}), copyOf(entry{6, "x"}), garbage(1024))},
		{"deleted in legacy only", imageOf(nil, nil, legacy), content{6: ""}, imageOf(nil, nil, legacyOf(entry{2, "two"}, entry{7, ""}))},
		{"deleted in both", imageOf(copyOf(entry{6, "x"}), copyOf(entry{6, "x"}), legacy), content{6: ""}, imageOf(copyOf(), copyOf(), legacyOf(entry{2, "two"}, entry{7, ""}))},
		{"deleted in legacy, another set", imageOf(nil, nil, legacy), content{6: "", 9: "x"}, imageOf(copyOf(entry{9, "x"}), copyOf(entry{9, "x"}), legacyOf(entry{2, "two"}, entry{7, ""}))},
		{"all of legacy deleted", imageOf(nil, nil, legacy), content{2: "", 6: "", 7: ""}, imageOf(nil, nil, legacyOf())},
		{"deleted where only the second legacy sector is good", imageOf(nil, nil, strange), content{6: ""}, imageOf(nil, nil, legacyOf(entry{2, "two"}, entry{7, ""}))},
		{"a tag that is twice in legacy", imageOf(nil, nil, legacyOf(entry{6, "a"}, entry{7, "b"}, entry{6, "c"})), content{6: ""}, imageOf(nil, nil, legacyOf(entry{7, "b"}))},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := lukstest.DiskOf(test.before)
			change(t, d, test.changes)
			d.View(func(image []byte) {
				for _, part := range [][2]int{{0, copyLength}, {copyLength, 2 * copyLength}, {2 * copyLength, legacyStart}, {legacyStart, meta.Size}} {
					if !bytes.Equal(image[part[0]:part[1]], test.want[part[0]:part[1]]) {
						t.Errorf("bytes %#x to %#x differ, at their begin %.40x, want %.40x", part[0], part[1], image[part[0]:], test.want[part[0]:])
					}
				}
			})
			again := mustRead(t, d)
			for tag, value := range test.changes {
				if got, ok := again.Get(tag); string(got) != value || ok != (value != "") {
					t.Errorf("%s is %.40q, %v", tag, got, ok)
				}
			}
		})
	}
}

func everyTag() content {
	all := content{}
	for tag := 1; tag < 256; tag++ {
		all[meta.Tag(tag)] = strings.Repeat("v", tag)
	}
	return all
}

func everyEntry() (all []entry) {
	for tag := uint32(1); tag < 256; tag++ {
		all = append(all, entry{tag, strings.Repeat("v", int(tag))})
	}
	return all
}

// TestGolden: the first 24 bytes that Talos writes for one value of four bytes.
func TestGolden(t *testing.T) {
	d := lukstest.NewDisk(meta.Size)
	change(t, d, content{9: "null"})
	want := []byte("\x5a\x4b\x3c\x2d\x00\x00\x00\x09\x00\x00\x00\x04null\x00\x00\x00\x00\x00\x00\x00\x00")
	if got := d.Bytes()[:24]; !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestSet(t *testing.T) {
	d := lukstest.DiskOf(imageOf(nil, nil, legacyOf(entry{7, strings.Repeat("l", 200)})))
	m := mustRead(t, d)
	if err := m.Set(0, []byte("x")); err == nil {
		t.Error("tag 0 was set")
	}
	for _, step := range []struct {
		tag  meta.Tag
		size int
		ok   bool
	}{
		{6, meta.Capacity, false},
		{6, meta.Capacity - 7, false},
		{6, meta.Capacity - 8, true},
		{6, meta.Capacity - 7, false},
		{8, 0, false},
		{6, meta.Capacity - 16, true}, // replaced, not added
		{8, 0, true},
		{9, 0, false},
		{8, 1, false},
		{6, 1000, true},
		{7, meta.Capacity - 1000 - 24, true}, // the legacy value takes nothing
		{7, meta.Capacity - 1000 - 23, false},
	} {
		before := contentOf(t, m)
		err := m.Set(step.tag, bytes.Repeat([]byte("x"), step.size))
		if (err == nil) != step.ok || err != nil && !errors.Is(err, meta.ErrFull) {
			t.Errorf("set %s to %d bytes: %v", step.tag, step.size, err)
		}
		if err != nil && !cmp.Equal(before, contentOf(t, m)) {
			t.Errorf("set %s to %d bytes failed and changed something", step.tag, step.size)
		}
	}
	if used, total := m.Room(); used != total || total != meta.Capacity {
		t.Errorf("%d of %d", used, total)
	}
	want := contentOf(t, m)
	if err := m.Commit(); err != nil {
		t.Fatal(err)
	}
	sound(t, d, want)
}

// TestOwnBytes: a value belongs to whoever gave or got it.
func TestOwnBytes(t *testing.T) {
	m := mustRead(t, lukstest.NewDisk(meta.Size))
	value := []byte("abc")
	if err := m.Set(6, value); err != nil {
		t.Fatal(err)
	}
	value[0] = 'x'
	got, _ := m.Get(6)
	got[1] = 'x'
	if again, _ := m.Get(6); string(again) != "abc" {
		t.Errorf("%s", again)
	}
}

// TestNothingChanged: a commit of what is there writes nothing.
func TestNothingChanged(t *testing.T) {
	legacy := legacyOf(entry{6, "a"})
	for name, test := range map[string]struct {
		image   []byte
		changes content
	}{
		"nothing":              {twice(entry{6, "a"}), nil},
		"empty META":           {imageOf(nil, nil, nil), nil},
		"the same value":       {twice(entry{6, "a"}), content{6: "a"}},
		"no such tag":          {twice(entry{6, "a"}), content{7: ""}},
		"no such tag in empty": {imageOf(nil, nil, legacy), content{7: ""}},
		"another order":        {twice(entry{7, "b"}, entry{6, "a"}), content{6: "a"}},
		"damage":               {imageOf(copyOf(entry{6, "a"}), nil, garbage(1024)), nil},
	} {
		d := lukstest.DiskOf(test.image)
		change(t, d, test.changes)
		if len(d.Ops()) > 0 {
			t.Errorf("%s: wrote %v", name, d.Ops())
		}
	}
}

func TestConflict(t *testing.T) {
	start := imageOf(copyOf(entry{6, "a"}), copyOf(entry{6, "a"}), legacyOf(entry{7, "b"}))
	for name, test := range map[string]struct {
		theirs, ours content
		want         error
	}{
		"same tag":            {content{6: "theirs"}, content{6: "ours"}, meta.ErrConflict},
		"another tag":         {content{8: "theirs"}, content{6: "ours"}, meta.ErrConflict},
		"deleted":             {content{6: ""}, content{6: "ours"}, meta.ErrConflict},
		"deleted from legacy": {content{7: ""}, content{6: "ours"}, meta.ErrConflict},
		"nothing to commit":   {content{6: "theirs"}, nil, meta.ErrConflict},
		"changed and back":    {nil, content{6: "ours"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := lukstest.DiskOf(start)
			m := mustRead(t, d)
			edit(t, m, test.ours)
			change(t, d, test.theirs)
			if test.theirs == nil {
				change(t, d, content{6: "x"})
				change(t, d, content{6: "a"})
			}
			ops := len(d.Ops())
			err := m.Commit()
			if !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			if err != nil && len(d.Ops()) > ops {
				t.Errorf("wrote %v", d.Ops()[ops:])
			}
		})
	}
	t.Run("damaged since", func(t *testing.T) {
		d := lukstest.DiskOf(start)
		m := mustRead(t, d)
		edit(t, m, content{6: "ours"})
		d.WriteAt([]byte{1}, 100)
		d.WriteAt([]byte{1}, copyLength+100)
		var damage *meta.DamageError
		if err := m.Commit(); !errors.As(err, &damage) || len(d.Ops()) != 2 {
			t.Errorf("%v after %v", err, d.Ops())
		}
	})
	t.Run("goes on after a commit", func(t *testing.T) {
		d := lukstest.DiskOf(start)
		m := mustRead(t, d)
		for _, value := range []string{"b", "c"} {
			edit(t, m, content{6: value, 7: ""})
			if err := m.Commit(); err != nil {
				t.Fatal(err)
			}
			sound(t, d, content{6: value})
		}
	})
}

// locked counts who holds the lock while something is read or written.
type locked struct {
	*lukstest.Disk
	t    *testing.T
	held string
	fail error
}

func (l *locked) Lock(exclusive bool) (func(), error) {
	if l.fail != nil {
		return nil, l.fail
	}
	l.held = map[bool]string{false: "shared", true: "exclusive"}[exclusive]
	return func() { l.held = "" }, nil
}

func (l *locked) ReadAt(p []byte, off int64) (int, error) {
	if l.held == "" {
		l.t.Error("read without the lock")
	}
	return l.Disk.ReadAt(p, off)
}

func (l *locked) WriteAt(p []byte, off int64) (int, error) {
	if l.held != "exclusive" {
		l.t.Errorf("written with the lock %q", l.held)
	}
	return l.Disk.WriteAt(p, off)
}

func (l *locked) Sync() error {
	if l.held != "exclusive" {
		l.t.Errorf("synced with the lock %q", l.held)
	}
	return l.Disk.Sync()
}

func TestLock(t *testing.T) {
	d := &locked{Disk: lukstest.DiskOf(imageOf(copyOf(entry{6, "a"}), nil, legacyOf(entry{7, "b"}))), t: t}
	if _, err := meta.Repair(d, meta.RepairOptions{}); err != nil {
		t.Error(err)
	}
	m := mustRead(t, d)
	edit(t, m, content{6: "b", 7: ""})
	if err := m.Commit(); err != nil {
		t.Error(err)
	}
	if d.held != "" {
		t.Errorf("still locked %s", d.held)
	}
	d.fail = errors.New("own")
	_, readErr := meta.Read(d)
	_, repairErr := meta.Repair(d, meta.RepairOptions{Reset: true})
	for _, err := range []error{readErr, repairErr, m.Commit()} {
		if !errors.Is(err, d.fail) {
			t.Errorf("%v", err)
		}
	}
}

func TestRepair(t *testing.T) {
	a, b := copyOf(entry{6, "a"}), copyOf(entry{7, "b"})
	disorder := copyOf(entry{7, "b"}, entry{6, "a"})
	legacy := legacyOf(entry{6, "legacy"})
	tests := []struct {
		name   string
		before []byte
		reset  bool
		after  []byte // nil: as before, and nothing written
		done   string // a part of what was done
		refuse bool
	}{
		{name: "sound", before: imageOf(a, a, legacy)},
		{name: "sound, with reset", before: imageOf(a, a, nil), reset: true},
		{name: "zeros", before: imageOf(nil, nil, nil)},
		{name: "zeros, with reset", before: imageOf(nil, nil, nil), reset: true},
		{name: "legacy only", before: imageOf(nil, nil, legacy), reset: true},
		{name: "legacy garbage", before: imageOf(a, a, garbage(1024)), reset: true},
		{name: "copy 1 broken", before: imageOf(broken(a), disorder, garbage(1024)), after: imageOf(disorder, disorder, garbage(1024)), done: "wrote copy 1 (at byte 0) again from copy 2"},
		{name: "copy 2 broken", before: imageOf(disorder, broken(a), legacy), after: imageOf(disorder, disorder, legacy), done: "wrote copy 2 (at byte 262144) again from copy 1"},
		{name: "copy 2 broken, with reset", before: imageOf(a, garbage(copyLength), nil), reset: true, after: imageOf(a, a, nil), done: "copy 2"},
		{name: "copy 1 zeros", before: imageOf(nil, a, nil), after: imageOf(a, a, nil), done: "copy 1"},
		{name: "copies differ", before: imageOf(b, a, nil), after: imageOf(b, b, nil), done: "copy 2"},
		{name: "copies differ in their order", before: imageOf(disorder, copyOf(entry{6, "a"}, entry{7, "b"}), nil), after: imageOf(disorder, disorder, nil), done: "copy 2"},
		{name: "a first write that was cut off", before: imageOf(torn(a, make([]byte, 512), 1), nil, legacy), after: imageOf(nil, nil, legacy), done: "wiped copy 1"},
		{name: "both broken", before: imageOf(broken(a), broken(a), legacy), refuse: true},
		{name: "garbage", before: garbage(meta.Size), refuse: true},
		{name: "both broken, with reset", before: imageOf(broken(a), broken(b), legacy), reset: true, after: imageOf(copyOf(), copyOf(), legacy), done: "made META empty"},
		{name: "copy 1 broken, copy 2 zeros, with reset", before: imageOf(broken(a), nil, nil), reset: true, after: twice(), done: "made META empty"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := lukstest.DiskOf(test.before)
			done, err := meta.Repair(d, meta.RepairOptions{Reset: test.reset})
			if test.refuse {
				refused(t, err, "both copies of META are damaged")
			} else if err != nil {
				t.Fatal(err)
			}
			if test.after == nil {
				if len(done) > 0 || len(d.Ops()) > 0 {
					t.Errorf("did %q, wrote %v", done, d.Ops())
				}
				return
			}
			if len(done) != 1 || !strings.Contains(done[0], test.done) {
				t.Errorf("did %q, want %q", done, test.done)
			}
			if !bytes.Equal(d.Bytes(), test.after) {
				t.Error("the bytes are not those that were expected")
			}
			if again, err := meta.Repair(d, meta.RepairOptions{Reset: true}); len(again) > 0 || err != nil {
				t.Errorf("a second repair did %q, %v", again, err)
			}
		})
	}
}
