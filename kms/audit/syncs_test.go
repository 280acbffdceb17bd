package audit

import (
	"sync"
	"testing"
)

// TestSyncs: many appenders share a sync, no one returns before it, and each sync
// is counted.
func TestSyncs(t *testing.T) {
	p := &plan{}
	l := faulty(t, t.TempDir(), p)
	defer l.Close()
	const each, rounds = 32, 20
	var all sync.WaitGroup
	for range each {
		all.Go(func() {
			for range rounds {
				before := l.Syncs()
				if err := l.Append(Event{Op: "unseal"}); err != nil {
					t.Error(err)
				}
				if l.Syncs() == before {
					t.Error("a record returned without a sync since")
				}
			}
		})
	}
	all.Wait()
	p.mu.Lock()
	synced := p.count["sync"]
	p.mu.Unlock()
	if n := l.Syncs(); int(n) != synced || n >= each*rounds || l.Head().Seq != each*rounds {
		t.Errorf("%d syncs are counted, %d were made, for %d records", n, synced, l.Head().Seq)
	}
}
