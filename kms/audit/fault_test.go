package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// bad is a file of which one call fails: the nth of WriteAt, Sync or Truncate.
type bad struct {
	file
	plan *plan
}

// plan counts the calls to all files of a log and says which one fails.
type plan struct {
	mu    sync.Mutex
	fails map[string]int // call -> which one, from 1
	short bool           // a write that fails wrote half
	count map[string]int
}

var errPlanned = fmt.Errorf("planned: %w", syscall.ENOSPC)

func (p *plan) hit(call string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count[call]++
	return p.fails[call] == p.count[call]
}

func (b bad) WriteAt(text []byte, off int64) (int, error) {
	if !b.plan.hit("write") {
		return b.file.WriteAt(text, off)
	}
	n := 0
	if b.plan.short && len(text) != headSize { // the head lies in one sector: all or nothing
		n, _ = b.file.WriteAt(text[:len(text)/2], off)
	}
	return n, errPlanned
}

func (b bad) Sync() error {
	if b.plan.hit("sync") {
		return errPlanned
	}
	return b.file.Sync()
}

func (b bad) Truncate(n int64) error {
	if b.plan.hit("truncate") {
		return errPlanned
	}
	return b.file.Truncate(n)
}

// faulty opens a log in dir whose files follow the plan from now on.
func faulty(t *testing.T, dir string, p *plan) *Log {
	t.Helper()
	l, err := Open(dir, Options{FileSize: 300})
	if err != nil {
		t.Fatal(err)
	}
	p.count = map[string]int{}
	l.disk.synced = time.Now().Add(time.Hour) // the head's own sync must not depend on the clock
	l.disk.file, l.disk.head = bad{l.disk.file, p}, bad{l.disk.head, p}
	l.disk.open = func(path string, flag int) (file, error) {
		if p.hit("open") {
			return nil, errPlanned
		}
		f, err := openFile(path, flag)
		return bad{f, p}, err
	}
	return l
}

// TestEveryFault fails each call of a run of eight appends once. Whatever was
// returned for is there after the log is opened again, and it verifies.
func TestEveryFault(t *testing.T) {
	for _, call := range []string{"write", "short write", "sync", "open", "write and truncate"} {
		for nth := 1; ; nth++ {
			p := &plan{fails: map[string]int{call: nth}}
			switch call {
			case "short write":
				p.fails, p.short = map[string]int{"write": nth}, true
			case "write and truncate":
				p.fails, p.short = map[string]int{"write": nth, "truncate": 1}, true
			}
			dir := t.TempDir()
			l := faulty(t, dir, p)
			acked, failed := 0, 0
			for i := range 8 {
				if err := l.Append(Event{Op: "unseal", Node: fmt.Sprint(i)}); err == nil {
					acked++
				} else if failed++; !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("%s %d: %v", call, nth, err)
				}
			}
			head := l.Head()
			l.Close()
			if failed == 0 {
				if nth < 3 {
					t.Fatalf("%s: only %d calls were made", call, nth-1)
				}
				break
			}
			if failed > 1 && call == "open" {
				t.Errorf("open %d: %d appends failed; it works again after one", nth, failed)
			}
			checkReopened(t, dir, head, acked, fmt.Sprint(call, " ", nth))
		}
	}
}

func checkReopened(t *testing.T, dir string, head Head, acked int, what string) {
	t.Helper()
	again, err := Open(dir, Options{})
	if err != nil {
		t.Fatalf("%s: open again: %v", what, err)
	}
	if err := again.Append(Event{Op: "seal"}); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	again.Close()
	rep, err := Verify(t.Context(), dir, head, again.Head())
	if err != nil || head.Seq != uint64(acked) || rep.Records < uint64(acked)+1 {
		t.Errorf("%s: %d were returned for, head %d; found %+v, %v", what, acked, head.Seq, rep, err)
	}
}

// TestFullDiskHeals appends again once there is room, without being reopened.
func TestFullDiskHeals(t *testing.T) {
	dir := t.TempDir()
	l := faulty(t, dir, &plan{fails: map[string]int{"write": 3}, short: true}) // 1: record, 2: head
	if err := l.Append(Event{Op: "a"}); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("longer than the next one, even by half; ", 6)
	if err := l.Append(Event{Op: "b", Detail: long}); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrUnusable) {
		t.Fatal(err)
	}
	if err := l.Append(Event{Op: "c"}); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if rep, err := Verify(t.Context(), dir, l.Head()); err != nil || rep.Records != 2 || rep.Unfinished != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// TestNothingAfterAFailedSync: the page cache cannot be trusted any more.
func TestNothingAfterAFailedSync(t *testing.T) {
	l := faulty(t, t.TempDir(), &plan{fails: map[string]int{"sync": 1}})
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := l.Append(Event{Op: "a"}); !errors.Is(err, ErrUnusable) {
			t.Fatal(err)
		}
		if err := l.Err(); !errors.Is(err, ErrUnusable) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	l.Close()
}

// TestGroupsShareASync holds the disk while others come.
func TestGroupsShareASync(t *testing.T) {
	p := &plan{}
	l := faulty(t, t.TempDir(), p)
	l.turn <- struct{}{} // the disk is busy
	const people = 50
	var wg sync.WaitGroup
	for range people {
		wg.Go(func() {
			if err := l.Append(Event{Op: "a"}); err != nil {
				t.Error(err)
			}
		})
	}
	for gathered := 0; gathered < people; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		gathered = len(l.next.members)
		l.mu.Unlock()
	}
	<-l.turn
	wg.Wait()
	if p.count["sync"] != 1 || l.Head().Seq != people {
		t.Errorf("%d syncs for %d records", p.count["sync"], l.Head().Seq)
	}
	l.Close()
}

func FuzzVerify(f *testing.F) {
	var buf []byte
	var h Head
	for _, e := range []Event{{Op: "seal", Node: "n"}, {Op: "unseal", Detail: "x"}} {
		buf, h = link(buf, h, encode(e))
	}
	f.Add(buf)
	f.Add(buf[:len(buf)-4])
	f.Add([]byte(`{"seq":1,"prev":"","hash":""}`))
	good := string(buf)
	f.Fuzz(func(t *testing.T, text []byte) {
		v := verifier{heads: []Head{h}}
		if err := errors.Join(v.read("log", bytes.NewReader(text)), v.done("log")); err == nil && string(text[:min(len(text), len(good))]) != good {
			t.Fatal("other bytes passed for the log with this head")
		}
	})
}

// TestLongestLine: whatever is in an event, a reader has room for its line.
func TestLongestLine(t *testing.T) {
	for _, c := range []string{"<", "\x00", "é", "\xff", "\\"} {
		s := strings.Repeat(c, 10_000)
		e := Event{Op: s, Node: s, Address: s, Actor: s, Role: s, Serial: s, Outcome: s, Code: s, Rule: s, KeyVersion: 1<<32 - 1, Before: s, After: s, Reason: s, Detail: s}
		line, _ := link(nil, Head{Seq: 1<<64 - 2}, encode(e))
		if len(line) >= MaxLine {
			t.Errorf("%q: %d bytes", c, len(line))
		}
		if _, err := parse(line); err != nil {
			t.Errorf("%q: %v", c, err)
		}
	}
	e := Event{After: "networks=" + strings.Repeat("192.0.2.0/24,", 255)}
	if text := string(encode(e)); !strings.Contains(text, e.After) {
		t.Error("a change as long as they are is cut")
	}
}

// FuzzEncode compares with encoding/json.
func FuzzEncode(f *testing.F) {
	f.Add("op", "node", "actor", "detail", uint32(7), int64(1), int64(2))
	f.Add("", "<&>", "\x00\"\\", "\xff é \u2028", uint32(0), int64(-1), int64(999_999_999))
	f.Fuzz(func(t *testing.T, op, node, actor, detail string, version uint32, sec, nsec int64) {
		at := time.Unix(sec%253402300800, nsec).UTC()
		if at.Year() < 0 || at.Year() > 9999 {
			t.Skip("no such JSON")
		}
		e := Event{Time: at, Op: clip(op), Node: clip(node), Address: clip(detail), Actor: clip(actor), Role: clip(node), Serial: clip(op), Outcome: clip(node), Code: clip(op), Rule: clip(actor), KeyVersion: version, Before: clipChange(detail), After: clipChange(actor), Reason: clip(node), Detail: clip(detail)}
		want, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if got := "{" + string(encode(e)) + "}"; got != string(want) {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	})
}

func FuzzHead(f *testing.F) {
	f.Add(Head{}.String())
	f.Add("18446744073709551615:" + fmt.Sprintf("%064x", 1))
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := ParseHead(s); err == nil && h.String() != s {
			t.Fatalf("%q becomes %q", s, h)
		}
	})
}
