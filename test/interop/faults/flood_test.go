package faults_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/cryptctl/cryptctl/test/interop/served"
)

// What a server may have in memory of its own while it is attacked, and afterwards.
// Most of the latter are the stacks of those who answer.
const (
	rudeMost = 512 << 10 // KiB
	restMost = 192 << 10

	slowest = 10 * time.Second // that an honest client waits: Talos gives up then
)

// watched is a server under attack, with honest clients beside.
type watched struct {
	*served.Server
	t      *testing.T
	tls    *tls.Config // nil: plaintext
	honest *load
	stop   func()
	before usage

	mu   sync.Mutex
	peak usage
}

// attacked starts a server and honest clients, and looks at what it holds.
func attacked(t *testing.T, flags ...string) *watched {
	t.Helper()
	w := &watched{Server: newServer(t), t: t, honest: newLoad(t)}
	if len(flags) == 0 {
		w.tls = w.TLS(t)
	}
	w.Start(t, flags...)
	w.stop = w.honest.run(w.Server, 2)
	eventually(t, "the honest are served", func() bool { return w.honest.count() > 200 })
	w.before = usageOf(t, w.PID())
	w.peak = w.before
	return w
}

func (w *watched) look() {
	u := usageOf(w.t, w.PID())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peak.rss, w.peak.files, w.peak.threads = max(w.peak.rss, u.rss), max(w.peak.files, u.files), max(w.peak.threads, u.threads)
}

// looking looks at the server until the returned function is called.
func (w *watched) looking() (stop func()) {
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				w.look()
			}
		}
	})
	return func() { close(done); all.Wait() }
}

// over ends the honest clients and says how they and the server fared.
func (w *watched) over(begun int) string {
	w.t.Helper()
	served := w.honest.count() - begun
	var rest usage
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		rest = usageOf(w.t, w.PID())
		if rest.files <= w.before.files+4 && rest.rss <= restMost {
			break
		}
		if time.Now().After(end) {
			w.t.Errorf("what the rude held is not given back: %+v before, %+v at most, %+v now", w.before, w.peak, rest)
			break
		}
	}
	w.stop()
	if n := len(w.honest.refused); n > 0 {
		w.t.Errorf("the honest were refused: %s", w.honest.reasons())
	}
	if served < 5 || w.honest.worst > slowest {
		w.t.Errorf("the honest got %d answers, the slowest after %s", served, w.honest.worst)
	}
	if w.peak.rss > rudeMost {
		w.t.Errorf("the server took %d MiB, %d before", w.peak.rss>>10, w.before.rss>>10)
	}
	if n := w.LogSize(); n > 64<<10 {
		w.t.Errorf("the server said %d bytes:\n%.2000s", n, w.Log())
	}
	w.honest.allOpen(w.Server)
	w.honest.onRecord(w.Path("audit"))
	return fmt.Sprintf("honest clients sealed %d times meanwhile, slowest answer %s; MiB before, at most, after: %d, %d, %d; descriptors: %d, %d, %d; threads: %d, %d, %d",
		served, w.honest.worst.Round(time.Millisecond), w.before.rss>>10, w.peak.rss>>10, rest.rss>>10,
		w.before.files, w.peak.files, rest.files, w.before.threads, w.peak.threads, rest.threads)
}

// TestRude keeps hundreds of connections of clients who go silent, are slow, send
// too much or do not read.
func TestRude(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"TLS", "plaintext"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			var flags []string
			limit, silent := 22*time.Second, 0 // 20 s for a handshake, and some
			for _, k := range kinds() {
				if k.silent {
					silent += k.n
				}
			}
			if way == "plaintext" {
				flags = []string{"--plaintext-exposes-keys"}
				limit, silent = 6*time.Second, 0
			}
			w := attacked(t, flags...)
			begun, unlook := w.honest.count(), w.looking()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			counts, kept := beRude(ctx, w)
			<-ctx.Done()
			held := usageOf(t, w.PID()).files - w.before.files
			if most := len(kept) - silent + 10; held > most {
				t.Errorf("%d connections are held after %s, at most %d finished a handshake", held, limit, most)
			}
			for _, r := range kept {
				r.leave()
			}
			unlook()
			t.Logf("SUMMARY fault rude clients, %s: %s; %d of %d connections held after %s; %s", way, counts, held, len(kept), limit, w.over(begun))
		})
	}
}

// beRude starts all kinds.
func beRude(ctx context.Context, w *watched) (counts string, kept []*rude) {
	var words []string
	var mu sync.Mutex
	var dialled sync.WaitGroup
	for at, k := range kinds() {
		words = append(words, fmt.Sprintf("%d %s", k.n, k.name))
		for i := range k.n {
			dialled.Add(1)
			go func() {
				r, err := dial(w.Server, fmt.Sprintf("127.0.2.%d", 1+at))
				if err == nil {
					mu.Lock()
					kept = append(kept, r)
					mu.Unlock()
				}
				dialled.Done()
				if err != nil {
					w.t.Errorf("%s %d: %v", k.name, i, err)
					return
				}
				_ = k.do(ctx, r, w.tls) // whatever the server does about it
			}()
		}
	}
	dialled.Wait()
	return strings.Join(words, ", "), kept
}

// TestRandom sends 10,000 random streams each to a port with TLS and to one
// without. The server ends each of them.
func TestRandom(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"TLS", "plaintext"} {
		t.Run(way, func(t *testing.T) {
			var flags []string
			if way == "plaintext" {
				flags = []string{"--plaintext-exposes-keys"}
			}
			w := attacked(t, flags...)
			begun, unlook := w.honest.count(), w.looking()
			const streams, clients = 10_000, 16
			var mu sync.Mutex
			ends := map[string]int{}
			var all sync.WaitGroup
			for c := range clients {
				all.Go(func() {
					for i := c; i < streams; i += clients {
						end := w.random(i)
						mu.Lock()
						ends[end]++
						mu.Unlock()
					}
				})
			}
			all.Wait()
			unlook()
			if n := ends["closed"]; n != streams {
				t.Errorf("the server ended %d of %d streams: %v", n, streams, ends)
			}
			t.Logf("SUMMARY fault random bytes, %s: %d streams, %d ended by the server; %s", way, streams, ends["closed"], w.over(begun))
		})
	}
}

// random sends one stream: bytes alone, after the beginning of what the port
// speaks, or inside of it.
func (w *watched) random(i int) (end string) {
	r, err := dial(w.Server, fmt.Sprintf("127.0.3.%d", 1+i%200))
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	_ = r.SetDeadline(time.Now().Add(patience))
	text := noise(1 + rand.IntN(2000))
	switch i % 8 {
	case 1, 2:
		text = append([]byte{22, 3, 1, byte(rand.IntN(64)), byte(rand.Uint32())}, text...) // a record of TLS
	case 3, 4:
		text = append([]byte(http2.ClientPreface), text...)
	case 5, 6, 7: // frames, inside of TLS where there is some
		if err := r.handshake(w.t.Context(), w.tls); err != nil {
			return err.Error()
		}
		if err := r.greet(); err != nil {
			return err.Error()
		}
		text = frames(20)
	}
	_, _ = r.Write(text)
	if c, ok := r.Conn.(*tls.Conn); ok {
		_ = c.CloseWrite()
	}
	_ = r.tcp.CloseWrite()
	if _, err := io.Copy(io.Discard, r.tcp); errors.Is(err, os.ErrDeadlineExceeded) {
		return "left open"
	}
	return "closed"
}

// frames are random ones, of a length that fits.
func frames(n int) (text []byte) {
	for range n {
		size := rand.IntN(200)
		head := []byte{0, 0, byte(size), byte(rand.IntN(11)), byte(rand.Uint32()), 0, 0, 0, byte(rand.IntN(8))}
		text = append(append(text, head...), noise(size)...)
	}
	return text
}
