package logging_test

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/logging"
)

// TestLines: what a record becomes, by the names that Talos has.
func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		s, log, _ := n.sender(nil)
		s.Set(tcp(map[string]string{"cluster": "c1", "talos-service": "tagged"}))
		log.Debug("one", "slot", 3, "took", 1500*time.Millisecond, "error", fmt.Errorf("no: %w", io.EOF), "msg", "is not replaced")
		log.With("a", 1).WithGroup("volume").With("name", "STATE").Warn("two", slog.Group("key", "slot", 1), "ok", true)
		log.WithGroup("").WithGroup("g").Error("three \x00 \xff \n", "", 1, slog.Group("", "inline", 2.5))
		log.Info("four", "no number", math.Inf(1), "bytes", []byte("a b"), "nil", (*fs.PathError)(nil), "<&>", error(nil))
		s.Close(within(t, time.Minute))
		at := time.Now().UTC().Format(time.RFC3339Nano)
		want := []map[string]any{
			{"msg": "one", "talos-level": "debug", "slot": 3.0, "took": "1.5s", "error": "no: EOF"},
			{"msg": "two", "talos-level": "warn", "a": 1.0, "volume.name": "STATE", "volume.key.slot": 1.0, "volume.ok": true},
			{"msg": "three \x00 \uFFFD \n", "talos-level": "error", "g": 1.0, "g.inline": 2.5},
			{"msg": "four", "talos-level": "info", "no number": "+Inf", "bytes": "a b", "nil": "<nil>", "<&>": "<nil>"},
		}
		for _, w := range want {
			w["talos-time"], w["talos-service"], w["cluster"] = at, "tagged", "c1"
		}
		if d := cmp.Diff(want, n.got()); d != "" {
			t.Error(d)
		}
	})
}

// TestLong: a record of any length is a line of at most MaxLine that says it was
// cut.
func TestLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		s, log, _ := n.sender(nil)
		s.Set(tcp(map[string]string{"cluster": "c1"}))
		log.Info("attributes", "long", strings.Repeat("x", logging.MaxLine))
		log.Info(strings.Repeat("\x01", logging.MaxLine))
		log.Info(strings.Repeat("y", logging.MaxLine-400))
		s.Close(within(t, time.Minute))
		got := n.got()
		if len(got) != 3 {
			t.Fatalf("%d lines", len(got))
		}
		for i, cut := range []bool{true, true, false} {
			if (got[i]["truncated"] == true) != cut || got[i]["cluster"] != "c1" || got[i]["talos-level"] != "info" || len(n.lines[i]) >= logging.MaxLine {
				t.Errorf("line %d of %d bytes: truncated %v, cluster %v", i, len(n.lines[i]), got[i]["truncated"], got[i]["cluster"])
			}
		}
	})
}

// TestNeverWaits: with a destination that takes nothing a log call returns, memory
// is bounded, and later every record either arrived or is counted.
func TestNeverWaits(t *testing.T) {
	for name, change := range map[string]func(*logging.Options){
		"by number": func(o *logging.Options) { o.Queue = 100 },
		"by length": func(o *logging.Options) { o.QueueBytes = 10_000 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{t: t, stall: true}
				s, log, local := n.sender(change)
				s.Set(tcp(nil))
				begin := time.Now()
				const records = 5000
				for i := range records {
					log.Info("record", "i", i)
				}
				if took := time.Since(begin); took != 0 { // of a clock that stands still while anyone works
					t.Errorf("logging waited for %s", took)
				}
				if d := s.Dropped(); d < records-102 && name == "by number" || d < records-130 || d >= records {
					t.Errorf("%d of %d records were dropped", d, records)
				}
				synctest.Wait()
				n.up()
				time.Sleep(time.Minute)
				arrived, said := 0, 0.0
				for _, m := range n.got() {
					if lost, ok := m["dropped"].(float64); ok {
						said += lost
					} else {
						arrived++
					}
				}
				if arrived == 0 || said == 0 || arrived+int(said) != records || uint64(said) != s.Dropped() {
					t.Errorf("%d arrived and %v are said to be dropped, of %d; %d were", arrived, said, records, s.Dropped())
				}
				if got := strings.Count(local.String(), "are dropped until"); got != 1 {
					t.Errorf("the local log says %d times that records are dropped:\n%s", got, local)
				}
				s.Close(within(t, time.Minute))
			})
		})
	}
}

// TestBeforeTheNetwork: what is logged while there is no network is sent when there
// is, in order; the local log says so once, each way.
func TestBeforeTheNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t, down: true}
		s, log, local := n.sender(nil)
		s.Set(tcp(nil))
		for i := range 10 {
			log.Info("boot", "i", i)
			time.Sleep(time.Second)
		}
		n.mu.Lock()
		if n.dials < 3 || n.dials > 20 {
			t.Errorf("%d attempts in 10 s", n.dials)
		}
		n.mu.Unlock()
		n.up()
		s.Close(within(t, time.Minute))
		got := n.got()
		for i := range 10 {
			if len(got) != 10 || got[i]["i"] != float64(i) {
				t.Fatalf("arrived: %v", got)
			}
		}
		if text := local.String(); strings.Count(text, "wait for") != 1 || strings.Count(text, "unreachable") != 1 || strings.Count(text, "again") != 1 {
			t.Errorf("the local log:\n%s", text)
		}
	})
}

// TestHangUp: a line that a broken connection did not take comes whole on the next.
func TestHangUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		s, log, _ := n.sender(nil)
		s.Set(tcp(nil))
		for i := range 5 {
			log.Info("line", "i", i)
			time.Sleep(time.Minute)
			n.mu.Lock()
			n.conns[len(n.conns)-1].Close()
			n.mu.Unlock()
			synctest.Wait()
		}
		s.Close(within(t, time.Minute))
		got := n.got()
		if len(got) != 5 || len(n.conns) != 5 {
			t.Errorf("%d lines over %d connections: %v", len(got), len(n.conns), got)
		}
	})
}

// TestSet: destinations come and go; what waits for one that stays is kept.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t, down: true}
		s, log, _ := n.sender(nil)
		s.Set(nil)
		log.Info("nobody")
		s.Set(tcp(nil))
		log.Info("first")
		both := append(tcp(map[string]string{"second": "yes"}), tcp(nil)...)
		s.Set(append(both, tcp(nil)...)) // one that is there twice is one
		log.Info("both")
		n.up()
		time.Sleep(time.Minute)
		s.Set(nil)
		log.Info("nobody")
		time.Sleep(time.Minute)
		var plain, tagged []any
		for _, m := range n.got() {
			if m["second"] == "yes" {
				tagged = append(tagged, m["msg"])
			} else {
				plain = append(plain, m["msg"])
			}
		}
		if fmt.Sprint(plain, tagged) != "[first both] [both]" {
			t.Errorf("the first got %v, the second %v", plain, tagged)
		}
		s.Close(within(t, time.Minute))
		s.Set(tcp(nil)) // too late
		log.Info("nobody")
	})
}

// TestCloseEnds: a destination that takes nothing does not hold up the end.
func TestCloseEnds(t *testing.T) {
	for _, n := range []*network{{t: t, stall: true}, {t: t, down: true}} {
		synctest.Test(t, func(t *testing.T) {
			s, log, _ := n.sender(nil)
			s.Set(tcp(nil))
			log.Info("line")
			begin := time.Now()
			s.Close(within(t, 3*time.Second))
			if took := time.Since(begin); took != 3*time.Second {
				t.Errorf("Close took %s", took)
			}
		})
	}
}

// TestSockets: real sockets; a datagram has no newline, a stream has.
func TestSockets(t *testing.T) {
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	streams, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer streams.Close()
	s := logging.NewSender(logging.Options{Service: "noded"})
	s.Set([]logging.Destination{
		{Network: "udp", Address: packets.LocalAddr().String()},
		{Network: "tcp", Address: streams.Addr().String()},
	})
	log := slog.New(s.Handler(slog.NewTextHandler(io.Discard, nil)))
	log.Info("one")
	log.Info("long", "text", strings.Repeat("x", 50_000))
	log.Debug("the local handler does not want it")
	c, err := streams.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	end := time.Now().Add(10 * time.Second)
	_, _ = packets.SetReadDeadline(end), c.SetReadDeadline(end)
	var inUDP []string
	for range 2 {
		buf := make([]byte, 1<<16)
		size, _, err := packets.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		inUDP = append(inUDP, string(buf[:size]))
	}
	go s.Close(t.Context())
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Join(inUDP, "\n")+"\n", string(all)); d != "" {
		t.Errorf("udp and tcp: %s", d)
	}
	if m := decode(t, inUDP[0]); m["msg"] != "one" || m["talos-service"] != "noded" {
		t.Errorf("%v", m)
	}
}

func TestParseEndpoint(t *testing.T) {
	for text, want := range map[string]string{
		"udp://127.0.0.1:12345/": "udp 127.0.0.1:12345", "tcp://1.2.3.4:5044/": "tcp 1.2.3.4:5044", "tcp://10.200.0.138:5170": "tcp 10.200.0.138:5170",
		"tcp://[2001:db8::1]:1": "tcp [2001:db8::1]:1", "udp://logs.example:1": "udp logs.example:1",
		"": "scheme", "127.0.0.1:1": "URL", "http://a:1": "scheme", "tcp://a": "port", "tcp://:1": "host", "tcp://a:0": "port", "tcp://a:65536": "port",
		"tcp://a:1/path": "more than", "tcp://u@a:1": "more than", "udp://a:1?x": "more than", "tls://a:1": "scheme",
	} {
		network, address, err := logging.ParseEndpoint(text)
		got := network + " " + address
		if err != nil {
			got = err.Error()
			if !strings.Contains(got, want) || !strings.Contains(got, "udp:// or tcp://") {
				t.Errorf("%q: %v, must be about %q", text, err, want)
			}
		} else if got != want {
			t.Errorf("%q is %q, must be %q", text, got, want)
		}
	}
}

func TestCheckTags(t *testing.T) {
	if err := logging.CheckTags(map[string]string{"server": "s03-rack07"}); err != nil {
		t.Error(err)
	}
	for _, bad := range []map[string]string{{"": "x"}, {"x": strings.Repeat("y", logging.MaxTags)}} {
		if err := logging.CheckTags(bad); err == nil {
			t.Errorf("%.20v is accepted", bad)
		}
	}
}
