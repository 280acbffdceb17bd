package faults_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/test/interop/served"
)

// on has the server keep its store, its log, or both on a small volume.
func (v *volume) on(t *testing.T, s *served.Server, what string) (store, log string) {
	t.Helper()
	store, log = s.Path("nodes.db"), s.Path("audit")
	if strings.Contains(what, "store") {
		store = filepath.Join(v.dir, "nodes.db")
		s.Set(t, "\nstore: nodes.db\n", "\nstore: "+store+"\n")
	}
	if strings.Contains(what, "log") {
		log = filepath.Join(v.dir, "audit")
		s.Set(t, "\naudit: audit\n", "\naudit: "+log+"\n")
	}
	return store, log
}

// grown is the size of a file; 0 if it is not there.
func grown(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// TestFullDisk fills the disk under load, makes room again, fills it once more,
// and kills the server while it is full.
func TestFullDisk(t *testing.T) {
	var full, acked, itself, files, lost int
	for _, what := range []string{"store and log", "store", "log"} {
		for name, small := range map[string]func(*testing.T) *volume{
			"tmpfs": func(t *testing.T) *volume { return newTmpfs(t, "16m") }, "ext4": newExt4,
		} {
			t.Run(what+" on "+name, func(t *testing.T) {
				l, healed := fullDisk(t, what, small(t))
				files++
				full += l.refusals("store", "audit")
				acked += l.count()
				lost += l.lost
				if healed {
					itself++
				}
			})
		}
	}
	t.Logf("SUMMARY fault full disk (tmpfs and ext4; store, log, both): %d file systems filled twice under load, %d calls answered Unavailable for it, %d servers went on by themselves when there was room, %d seals acknowledged, %d lost",
		files, full, itself, acked, lost)
}

func fullDisk(t *testing.T, what string, v *volume) (l *load, healed bool) {
	s := newServer(t)
	l = newLoad(t)
	store, log := v.on(t, s, what)
	s.Start(t)
	stop := l.run(s, 8)
	eventually(t, "some seals", func() bool { return l.count() > 100 })
	v.fill()
	before := l.refusals("store", "audit")
	eventually(t, "refusals of a full disk", func() bool { return l.refusals("store", "audit") > before+100 })
	size := grown(store)
	v.free()
	acked := l.count()
	for end := time.Now().Add(3 * time.Second); !healed && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		healed = l.count() > acked+100
	}
	stop()
	if !healed {
		s.Kill()
		s.Start(t)
	}
	stop = l.run(s, 8)
	eventually(t, "the store has grown", func() bool { return !strings.Contains(what, "store") || grown(store) > size })
	v.fill()
	before = l.refusals("store", "audit")
	eventually(t, "refusals of a full disk", func() bool { return l.refusals("store", "audit") > before+100 })
	s.Kill()
	stop()
	fullStart(t, s)
	v.free()
	s.Start(t)
	l.allOpen(s)
	l.onRecord(log)
	s.Stop()
	l.whole(store)
	if reason := map[string]string{"store": "store", "log": "audit"}[what]; reason != "" && l.refusals(reason) < 200 {
		t.Errorf("not for the %s: %s", reason, l.reasons())
	}
	return l, healed
}

// fullStart starts a server whose disk is full: it runs, or says why not.
func fullStart(t *testing.T, s *served.Server) {
	t.Helper()
	if err := s.TryStart(); err != nil && !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("started with a full disk: %v", err)
	}
	s.Kill()
}

// TestReadOnlyDisk has the file system go read-only under load, as it does when
// its device fails: what was not synced is lost, what was acknowledged is not.
func TestReadOnlyDisk(t *testing.T) {
	var refused, acked, opened, rounds, lost int
	for _, what := range []string{"store and log", "store", "log"} {
		t.Run(what, func(t *testing.T) {
			v, s, l := newExt4(t), newServer(t), newLoad(t)
			store, log := v.on(t, s, what)
			for range 2 {
				s.Start(t)
				before, no := l.count(), l.refusals("store", "audit")
				stop := l.run(s, 8)
				eventually(t, "some seals", func() bool { return l.count() > before+200 })
				v.abort()
				eventually(t, "refusals of a read-only disk", func() bool { return l.refusals("store", "audit") > no+100 })
				if !s.Runs() {
					t.Errorf("the server ended:\n%s", s.Log())
				}
				s.Kill()
				stop()
				if err := s.TryStart(); err == nil || !strings.Contains(err.Error(), "read-only file system") {
					t.Errorf("started on a read-only disk: %v", err)
				}
				s.Kill()
				v.again()
				rounds++
			}
			s.Start(t)
			l.allOpen(s)
			l.onRecord(log)
			s.Stop()
			l.whole(store)
			refused += l.refusals("store", "audit")
			acked += l.count()
			opened += l.countOpened()
			lost += l.lost
		})
	}
	t.Logf("SUMMARY fault read-only disk (ext4 aborted; store, log, both): %d times under load, %d calls answered Unavailable for it, %d seals acknowledged, %d unseals, %d lost",
		rounds, refused, acked, opened, lost)
}
