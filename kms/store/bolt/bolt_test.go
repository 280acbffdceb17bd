package bolt_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/kms/store/bolt"
	"github.com/cryptctl/cryptctl/kms/store/storetest"
)

func mustOpen(t testing.TB, path string) *bolt.DB {
	t.Helper()
	db, err := bolt.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func opened(t testing.TB) (*bolt.DB, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kms.db")
	db := mustOpen(t, path)
	t.Cleanup(func() { db.Close() })
	return db, path
}

func put(t testing.TB, db *bolt.DB, name, value string) {
	t.Helper()
	e, err := db.Get(t.Context(), name, 0)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := db.Swap(t.Context(), name, e.Revision, []byte(value)); err != nil {
		t.Fatal(err)
	}
}

func TestSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		db, path := opened(t)
		t.Cleanup(func() {
			db.Close()
			if _, err := bolt.Check(path); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
		return db
	})
}

func TestOneProcess(t *testing.T) {
	_, path := opened(t)
	if _, err := bolt.Open(path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opened twice: %v", err)
	}
}

func TestClosed(t *testing.T) {
	db, _ := opened(t)
	put(t, db, "a", "1")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Get(t.Context(), "a", 0); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("get: %v", err)
	}
	if _, err := db.Swap(t.Context(), "a", 1, []byte("2")); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("swap: %v", err)
	}
}

func TestNotOurs(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other.db")
	db, err := bbolt.Open(other, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("x")); return err })
	db.Close()
	if _, err := bolt.Open(other); err == nil || !strings.Contains(err.Error(), "not a store") {
		t.Errorf("another program's database: %v", err)
	}
	newer := filepath.Join(dir, "newer.db")
	mustOpen(t, newer).Close()
	if db, err = bbolt.Open(newer, 0o600, nil); err != nil {
		t.Fatal(err)
	}
	db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("cryptctl")).Put([]byte("format"), []byte("2")) })
	db.Close()
	if _, err := bolt.Open(newer); err == nil || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("a newer format: %v", err)
	}
	text := filepath.Join(dir, "text")
	os.WriteFile(text, bytes.Repeat([]byte("no database "), 10_000), 0o600)
	if _, err := bolt.Open(text); err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("a text: %v", err)
	}
}

func TestCutFile(t *testing.T) {
	db, path := opened(t)
	for i := range 50 {
		put(t, db, fmt.Sprint("node/", i), strings.Repeat("x", 2000))
	}
	db.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []int{len(whole) / 2, len(whole) / 4, 16384, 8192, 100} {
		if err := os.WriteFile(path, whole[:part], 0o600); err != nil {
			t.Fatal(err)
		}
		if db, err := bolt.Open(path); err == nil {
			db.Close()
			t.Errorf("cut to %d of %d bytes, and it opens", part, len(whole))
		}
	}
}

func TestBackupAndRestore(t *testing.T) {
	db, path := opened(t)
	for i := range 30 {
		put(t, db, fmt.Sprint("node/", i), fmt.Sprint("value ", i))
	}
	// Writers go on while the backup is made.
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				put(t, db, "busy", fmt.Sprint(i))
			}
		}
	})
	var out bytes.Buffer
	err := db.Backup(&out)
	close(stop)
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	backup := out.Bytes()
	again := filepath.Join(t.TempDir(), "kms.db")
	n, err := bolt.Restore(again, bytes.NewReader(backup))
	if err != nil || n < 30 {
		t.Fatal(n, err)
	}
	restored := mustOpen(t, again)
	defer restored.Close()
	for i := range 30 {
		if e, err := restored.Get(t.Context(), fmt.Sprint("node/", i), 0); err != nil || string(e.Value) != fmt.Sprint("value ", i) {
			t.Errorf("node %d: %q, %v", i, e.Value, err)
		}
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := bolt.Restore(path, bytes.NewReader(backup)); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("in the place of a file that was moved away and is in use: %v", err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	if _, err := bolt.Restore(path, bytes.NewReader(backup)); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("over a store: %v", err)
	}
	left := filepath.Join(t.TempDir(), "left")
	if err := os.WriteFile(left+".restore", []byte("of a restore that was killed, and longer than the next"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := bolt.Restore(left, bytes.NewReader(backup)); n == 0 || err != nil {
		t.Errorf("after one that was killed: %d, %v", n, err)
	}
	if _, err := os.Lstat(left + ".restore"); err == nil {
		t.Error("the copy is left")
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "cut": backup[:len(backup)-1], "half": backup[:len(backup)/2],
		"longer": append(bytes.Clone(backup), 0), "no trailer": backup[:len(backup)-64],
		"changed": changed(backup, len(backup)/3), "changed sum": changed(backup, len(backup)-1),
	} {
		dir := t.TempDir()
		if n, err := bolt.Restore(filepath.Join(dir, "kms.db"), bytes.NewReader(bad)); err == nil {
			t.Errorf("%s: restored %d records", name, n)
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 || left[0].Name() != "kms.db.lock" { // which stays
			t.Errorf("%s: left %v", name, left)
		}
	}
}

func changed(p []byte, at int) []byte {
	p = bytes.Clone(p)
	p[at] ^= 1
	return p
}

type full struct{ room int }

func (f *full) Write(p []byte) (int, error) {
	if f.room -= len(p); f.room < 0 {
		return 0, errors.New("no space left")
	}
	return len(p), nil
}

func TestBackupToAFullDisk(t *testing.T) {
	db, _ := opened(t)
	for _, room := range []int{0, 5_000, 16_000} {
		if err := db.Backup(&full{room}); err == nil || !strings.Contains(err.Error(), "no space") {
			t.Errorf("room for %d: %v", room, err)
		}
	}
	put(t, db, "a", "it goes on")
}

// stalled takes a part and then nothing more until it is let go.
type stalled struct {
	room    int
	stalls  chan struct{}
	letGo   chan struct{}
	stalled bool
}

func (s *stalled) Write(p []byte) (int, error) {
	if s.room -= len(p); s.room < 0 && !s.stalled {
		s.stalled = true
		close(s.stalls)
		<-s.letGo
	}
	return len(p), nil
}

// TestBackupNotRead: whoever takes a backup slowly, or not at all, keeps nobody
// from reading, writing, growing the file and scrubbing it; and no copy is left.
func TestBackupNotRead(t *testing.T) {
	db, path := opened(t)
	for i := range 50 {
		put(t, db, fmt.Sprint("node/", i), strings.Repeat("filler ", 100))
	}
	w := &stalled{room: 10_000, stalls: make(chan struct{}), letGo: make(chan struct{})}
	made := make(chan error, 1)
	go func() { made <- db.Backup(w) }()
	<-w.stalls
	done := make(chan error, 1)
	go func() {
		var all sync.WaitGroup
		for i := range 300 { // the file grows to some times its size
			all.Go(func() {
				if _, err := db.Swap(t.Context(), fmt.Sprint("more/", i), 0, []byte(strings.Repeat("filler ", 500))); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		_, err := db.Get(t.Context(), "node/1", 0)
		done <- errors.Join(err, db.Scrub(t.Context()))
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the store stands still")
	}
	if left, err := filepath.Glob(path + ".backup*"); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	close(w.letGo)
	if err := <-made; err != nil {
		t.Error(err)
	}
}

// TestScrub looks for a replaced value in the file, and in the file that was.
func TestScrub(t *testing.T) {
	db, path := opened(t)
	const gone = "a value that must go"
	for i := range 20 {
		put(t, db, fmt.Sprint("node/", i), strings.Repeat("filler ", 100))
	}
	put(t, db, "node/x", strings.Repeat(gone, 100))
	put(t, db, "node/x", "forgotten")
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if text, _ := os.ReadFile(path); !bytes.Contains(text, []byte(gone)) {
		t.Fatal("bbolt left no trace: this test shows nothing")
	}
	var wg sync.WaitGroup // with readers and writers
	for p := range 4 {
		wg.Go(func() {
			for i := range 20 {
				put(t, db, fmt.Sprintf("other/%d", p), fmt.Sprint(i))
			}
		})
	}
	if err := db.Scrub(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	was := make([]byte, 1<<20)
	n, _ := old.ReadAt(was, 0)
	if now, _ := os.ReadFile(path); bytes.Contains(now, []byte(gone)) || n == 0 || bytes.Contains(was[:n], []byte(gone)) {
		t.Error("it is still there")
	}
	for i := range 20 {
		if e, err := db.Get(t.Context(), fmt.Sprint("node/", i), 0); err != nil || len(e.Value) != 700 {
			t.Errorf("node %d: %d bytes, %v", i, len(e.Value), err)
		}
	}
	e, err := db.Get(t.Context(), "node/x", 0)
	if err != nil || string(e.Value) != "forgotten" {
		t.Errorf("%q, %v", e.Value, err)
	}
	if rev, err := db.Swap(t.Context(), "new", 0, []byte("x")); err != nil || rev <= e.Revision {
		t.Errorf("revision %d after %d, %v", rev, e.Revision, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := bolt.Check(path); err != nil || n != 26 {
		t.Errorf("%d records, %v", n, err)
	}
}

func BenchmarkSwap(b *testing.B) {
	db, _ := opened(b)
	var mu sync.Mutex
	next := 0
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		mu.Lock()
		next++
		name := fmt.Sprint("node/", next)
		mu.Unlock()
		var rev uint64
		for pb.Next() {
			var err error
			if rev, err = db.Swap(b.Context(), name, rev, []byte("value")); err != nil {
				b.Error(err)
			}
		}
	})
}
