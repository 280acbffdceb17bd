package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/cryptctl/cryptctl/kms/store"
)

func made(t *testing.T) *DB {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "kms.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func (d *DB) value(t *testing.T, name string) (string, error) {
	e, err := d.Get(t.Context(), name, 0)
	return string(e.Value), err
}

// TestFailedSync: a commit whose sync fails is there for all who read, and may be
// gone after a power cut. Nothing is answered any more until the file is opened anew.
func TestFailedSync(t *testing.T) {
	d := made(t)
	if _, err := d.Swap(t.Context(), "a", 0, []byte("one")); err != nil {
		t.Fatal(err)
	}
	d.commit = func(db *bolt.DB, f func(*bolt.Tx) error) error {
		return errors.Join(db.Update(f), syscall.EIO) // as fdatasync says it
	}
	fails := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrUnusable) || !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := d.Swap(t.Context(), "b", 0, []byte("two"))
	fails("the one that failed", err)
	d.commit = (*bolt.DB).Update
	_, err = d.Swap(t.Context(), "c", 0, []byte("three"))
	fails("the next one", err)
	_, err = d.value(t, "b")
	fails("what was not synced", err)
	_, err = d.value(t, "a")
	fails("what was", err)
	for _, err := range d.List(t.Context(), "") {
		fails("all", err)
	}
	fails("a scrub", d.Scrub(t.Context()))
	fails("a backup", d.Backup(&bytes.Buffer{}))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(d.path); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if v, err := d.value(t, "a"); v != "one" || err != nil {
		t.Errorf("opened anew: %q, %v", v, err)
	}
	if _, err := d.Swap(t.Context(), "c", 0, []byte("three")); err != nil {
		t.Error(err)
	}
}

// TestNoRoom: a disk that is full changes nothing, and when there is room again all
// goes on.
func TestNoRoom(t *testing.T) {
	d := made(t)
	d.commit = func(db *bolt.DB, f func(*bolt.Tx) error) error {
		full := &fs.PathError{Op: "write", Path: d.path, Err: syscall.ENOSPC}
		db.Update(func(tx *bolt.Tx) error { return errors.Join(f(tx), full) })
		return full
	}
	if _, err := d.Swap(t.Context(), "a", 0, []byte("one")); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrUnusable) {
		t.Error(err)
	}
	if v, err := d.value(t, "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("%q, %v", v, err)
	}
	d.commit = (*bolt.DB).Update
	if _, err := d.Swap(t.Context(), "a", 0, []byte("one")); err != nil {
		t.Error(err)
	}
}

// TestReadBeforeSync: bbolt shows a commit before it is synced. A reader that sees it
// waits for the sync, and gets nothing if that fails; others do not wait.
func TestReadBeforeSync(t *testing.T) {
	for _, sync := range []error{nil, syscall.EIO} {
		d := made(t)
		if _, err := d.Swap(t.Context(), "a", 0, []byte("one")); err != nil {
			t.Fatal(err)
		}
		shown, goOn := make(chan struct{}), make(chan struct{})
		d.commit = func(db *bolt.DB, f func(*bolt.Tx) error) error {
			err := db.Update(f)
			close(shown)
			<-goOn
			return errors.Join(err, sync)
		}
		swapped, read := make(chan error), make(chan string, 2)
		go func() {
			_, err := d.Swap(t.Context(), "b", 0, []byte("two"))
			swapped <- err
		}()
		<-shown
		if v, err := d.value(t, "a"); v != "one" || err != nil {
			t.Errorf("what was synced: %q, %v", v, err)
		}
		go func() {
			v, err := d.value(t, "b")
			read <- fmt.Sprint(v, err == nil)
		}()
		go func() {
			all := ""
			for i, err := range d.List(t.Context(), "") {
				all += string(i.Value)
				if err != nil {
					all = ""
				}
			}
			read <- fmt.Sprint(all, all != "")
		}()
		select {
		case v := <-read:
			t.Errorf("read before it was synced: %s", v)
			read <- v
		case <-time.After(50 * time.Millisecond):
		}
		close(goOn)
		if err := <-swapped; (err == nil) != (sync == nil) {
			t.Error(err)
		}
		got := map[string]bool{<-read: true, <-read: true}
		want := map[string]bool{"twotrue": true, "onetwotrue": true}
		if sync != nil {
			want = map[string]bool{"false": true}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("sync %v: %v", sync, got)
		}
	}
}

// TestKilledWhileScrubbing stops a Scrub at each step, as a kill does. When the file
// is opened again, nothing that was replaced is left in what any name ever was.
func TestKilledWhileScrubbing(t *testing.T) {
	for _, step := range []string{"compacted", "linked", "renamed"} {
		d := made(t)
		gone := bytes.Repeat([]byte("SECRET"), 20)
		rev, err := d.Swap(t.Context(), "a", 0, gone)
		if err != nil {
			t.Fatal(err)
		}
		if step == "renamed" {
			_, err = d.Swap(t.Context(), "a", rev, []byte("forgotten"))
		}
		old, openErr := os.Open(d.path)
		if err := errors.Join(err, openErr, d.compact()); err != nil {
			t.Fatal(err)
		}
		left, err := os.Open(d.path + scrubbed)
		if err == nil && step != "compacted" {
			err = os.Link(d.path, d.path+replaced)
		}
		if err == nil && step == "renamed" {
			err = d.replace()
		}
		if err := errors.Join(err, d.Close()); err != nil {
			t.Fatal(err)
		}
		again, err := Open(d.path)
		if err != nil {
			t.Fatal(step, err)
		}
		if v, err := again.value(t, "a"); err != nil || (v == "forgotten") != (step == "renamed") {
			t.Errorf("%s: %q, %v", step, v, err)
		}
		for f, want := range map[*os.File]bool{old: step != "renamed", left: false} {
			raw := make([]byte, 1<<20)
			n, _ := f.ReadAt(raw, 0)
			if n == 0 || bytes.Contains(raw[:n], []byte("SECRETSECRET")) != want {
				t.Errorf("%s: %s: %d bytes, with what was replaced: %v", step, f.Name(), n, !want)
			}
			f.Close()
		}
		for _, name := range []string{scrubbed, replaced, restored} {
			if _, err := os.Lstat(d.path + name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %s is left: %v", step, name, err)
			}
		}
		again.Close()
	}
}

// TestListInPages: of a long list only a part is in memory, none is missing and none
// comes twice; what is changed before its part is read comes as it is then.
func TestListInPages(t *testing.T) {
	d, total := made(t), 2*pageSize+1
	var ops []*op
	for i := range total {
		ops = append(ops, &op{name: fmt.Sprintf("node/%06d", i), value: []byte("old")})
	}
	ops = append(ops, &op{name: "nodes", value: []byte("of another prefix")})
	if err := d.write(ops); err != nil {
		t.Fatal(err)
	}
	n, changed := 0, fmt.Sprintf("node/%06d", total-1)
	for i, err := range d.List(t.Context(), "node/") {
		if err != nil || i.Name != ops[n].name {
			t.Fatalf("%d: %s, %v", n, i.Name, err)
		}
		if n == 0 {
			if _, err := d.Swap(t.Context(), changed, ops[total-1].revision, []byte("new")); err != nil {
				t.Fatal(err)
			}
		}
		if want := map[bool]string{true: "new", false: "old"}[i.Name == changed]; string(i.Value) != want {
			t.Errorf("%s: %s", i.Name, i.Value)
		}
		n++
	}
	if n != total {
		t.Errorf("%d of %d", n, total)
	}
}
