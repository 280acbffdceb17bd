package faults_test

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestKill: kill -9 under load, again and again, at any moment.
func TestKill(t *testing.T) {
	const rounds = 6
	s, l := newServer(t), newLoad(t)
	for range rounds {
		s.Start(t)
		before := l.count()
		stop := l.run(s, 8)
		eventually(t, "some seals", func() bool { return l.count() >= before+50 })
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		s.Kill()
		stop()
		l.whole(s.Path("nodes.db"))
	}
	sealed, opened := l.count(), l.countOpened()
	s.Start(t)
	l.allOpen(s)
	records := l.onRecord(s.Path("audit"))
	s.Stop()
	l.whole(s.Path("nodes.db"))
	t.Logf("SUMMARY fault kill -9 under TLS load: %d kills, %d seals of %d nodes and %d unseals acknowledged, %d calls cut; %d records verify, %d blobs lost",
		rounds, sealed, l.nodes, opened, l.refusals("connection"), records, l.lost)
}
