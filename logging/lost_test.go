package logging_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/logging"
)

// TestReplaced: what waits for a destination that goes reaches the one that takes
// its place, with the tags of that one.
func TestReplaced(t *testing.T) {
	other := []logging.Destination{{Network: "tcp", Address: "10.0.0.2:5044"}}
	for name, next := range map[string][]logging.Destination{
		"another tag":     tcp(map[string]string{"rack": "r7"}),
		"another address": other,
		"and another":     append(tcp(map[string]string{"rack": "r7"}), kernel()...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{t: t, down: true}
				s, log, local := n.sender(func(o *logging.Options) { o.KernelLog = (&ring{}).open })
				s.Set(append(tcp(nil), kernel()...))
				for i := range 500 {
					log.Info("boot", "i", i)
				}
				time.Sleep(10 * time.Second)
				s.Set(next)
				log.Info("boot", "i", 500)
				time.Sleep(5 * time.Second)
				n.up()
				time.Sleep(time.Minute)
				n.wantUpTo(501)
				for _, m := range n.got() {
					if want := next[0].Tags["rack"]; want != "" && m["rack"] != want {
						t.Fatalf("%v has not the tag %s", m, want)
					}
				}
				if s.Dropped() != 0 || strings.Contains(local.String(), "drop") {
					t.Errorf("%d dropped; the local log:\n%s", s.Dropped(), local)
				}
				s.Close(within(t, time.Minute))
			})
		})
	}
}

// TestGone: what waits when a destination goes for good is counted and said.
func TestGone(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *logging.Sender){
		"removed": func(_ *testing.T, s *logging.Sender) { s.Set(nil) },
		"closed":  func(t *testing.T, s *logging.Sender) { s.Close(within(t, time.Second)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{t: t, down: true}
				s, log, local := n.sender(nil)
				s.Set(tcp(nil))
				for i := range 300 {
					log.Info("record", "i", i)
				}
				end(t, s)
				time.Sleep(2 * time.Second)
				if s.Dropped() != 300 || !containsOnce(local.String(), `"log records did not reach their destination" dropped=300`) {
					t.Errorf("%d dropped; the local log:\n%s", s.Dropped(), local)
				}
				s.Close(within(t, time.Second))
			})
		})
	}
}

// TestBeforeSet: what is logged before a destination is known reaches it, as far as
// there is room, and the rest is said. Without one it is forgotten.
func TestBeforeSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		s, log, local := n.sender(func(o *logging.Options) { o.Queue = 100 })
		for i := range 150 {
			log.Info("STATE does not open", "i", i)
		}
		if s.Dropped() != 0 || local.String() != "" {
			t.Errorf("%d dropped, of nobody; the local log:\n%s", s.Dropped(), local)
		}
		s.Set(append(tcp(nil), tcp(map[string]string{"second": "yes"})...))
		time.Sleep(time.Minute)
		said, counts := 0.0, map[any]int{}
		for _, m := range n.got() {
			if lost, ok := m["dropped"].(float64); ok {
				said += lost
				continue
			}
			if counts[m["second"]]++; m["talos-level"] != "info" {
				t.Errorf("%v", m)
			}
		}
		if counts[nil] != 100 || counts["yes"] != 100 || said != 100 || s.Dropped() != 100 {
			t.Errorf("arrived %v; %v said to be dropped, %d counted", counts, said, s.Dropped())
		}
		s.Close(within(t, time.Minute))
	})
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		s, log, _ := n.sender(nil)
		log.Info("of no interest")
		s.Set(nil)
		s.Set(tcp(nil))
		time.Sleep(time.Minute)
		if got := n.got(); len(got) != 0 {
			t.Errorf("arrived: %v", got)
		}
		s.Close(within(t, time.Minute))
	})
}

// TestTooLong: whatever the tags that are accepted, a line is at most MaxLine. One
// that no datagram takes is counted and said.
func TestTooLong(t *testing.T) {
	for _, text := range []string{"<", "\x01", "\u2028", "é", `"`} {
		tags := map[string]string{"t": strings.Repeat("x", 7000), "u": strings.Repeat(text, 8000/6)}
		synctest.Test(t, func(t *testing.T) {
			n := &network{t: t}
			s, log, _ := n.sender(nil)
			if err := logging.CheckTags(tags); err != nil {
				tags["t"] = ""
			}
			if err := logging.CheckTags(tags); err != nil {
				t.Fatal(err)
			}
			s.Set(tcp(tags))
			log.Info(strings.Repeat(text, logging.MaxLine))
			s.Close(within(t, time.Minute))
			got := n.got()
			if len(got) != 1 || got[0]["truncated"] != true || got[0]["u"] != tags["u"] || len(n.lines[0]) >= logging.MaxLine || len(n.lines[0]) < logging.MaxLine-20 {
				t.Errorf("%q: %d lines, the first of %d bytes", text, len(got), len(n.lines[0]))
			}
		})
	}
	local := &locked{}
	s := logging.NewSender(logging.Options{Local: slog.NewTextHandler(local, nil)})
	s.Set([]logging.Destination{{Network: "udp", Address: "127.0.0.1:9", Tags: map[string]string{"unchecked": strings.Repeat("x", 1<<16)}}})
	log := slog.New(s.Handler(slog.NewTextHandler(io.Discard, nil)))
	for range 10 {
		log.Info("record")
	}
	s.Close(within(t, time.Minute))
	if s.Dropped() != 10 || !strings.Contains(local.String(), "too long for a datagram") {
		t.Errorf("%d dropped; the local log:\n%s", s.Dropped(), local)
	}
}

// TestManyTags: tags count as long as they are in a line.
func TestManyTags(t *testing.T) {
	tags := map[string]string{}
	for i := range 1000 {
		tags[fmt.Sprint(i)] = ""
	}
	if err := logging.CheckTags(tags); err == nil {
		t.Error("1000 short tags are accepted")
	}
	if err := logging.CheckTags(map[string]string{"t": strings.Repeat("<", 8000)}); err != nil {
		t.Error(err)
	}
}

// TestHeirs: of two destinations that go, each new one gets what waits for the one
// with its address, and the number of what was dropped.
func TestHeirs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t, down: true}
		s, log, _ := n.sender(func(o *logging.Options) { o.Queue = 10 })
		second := []logging.Destination{{Network: "tcp", Address: "10.0.0.2:5044", Tags: map[string]string{"a": "2"}}}
		s.Set(second)
		log.Info("for the second")
		s.Set(append(second, tcp(nil)...))
		for i := range 15 {
			log.Info("record", "i", i)
		}
		s.Set([]logging.Destination{
			{Network: "tcp", Address: tcp(nil)[0].Address, Tags: map[string]string{"b": "1"}},
			{Network: "tcp", Address: second[0].Address, Tags: map[string]string{"b": "2"}},
		})
		if s.Dropped() != 5+6 {
			t.Errorf("%d dropped", s.Dropped())
		}
		n.up()
		time.Sleep(time.Minute)
		got := map[string]int{}
		for _, m := range n.got() {
			got[fmt.Sprint(m["b"], " ", m["msg"])]++
		}
		want := map[string]int{"1 record": 10, "1 5 log records were dropped": 1, "2 for the second": 1, "2 record": 9, "2 6 log records were dropped": 1}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		s.Close(within(t, time.Minute))
	})
}

// TestHeirOfMost: a destination that replaces two gets what waits for the one that
// could not be reached.
func TestHeirOfMost(t *testing.T) {
	const dead = "10.0.0.8:5044"
	for _, first := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{t: t}
			old := append(tcp(nil), logging.Destination{Network: "tcp", Address: dead})
			if first {
				old[0], old[1] = old[1], old[0]
			}
			s, log, _ := n.sender(func(o *logging.Options) {
				o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					switch address {
					case dead:
						return nil, syscall.EHOSTUNREACH
					case old[0].Address, old[1].Address:
						c, theirs := net.Pipe()
						go func() { _, _ = io.Copy(io.Discard, theirs) }()
						return c, nil
					}
					return n.dial(ctx, network, address)
				}
			})
			s.Set(old)
			for i := range 10 {
				log.Info("record", "i", i)
			}
			time.Sleep(time.Minute)
			s.Set([]logging.Destination{{Network: "tcp", Address: "10.0.0.9:5044"}})
			time.Sleep(time.Minute)
			n.wantUpTo(10)
			s.Close(within(t, time.Minute))
		})
	}
}
