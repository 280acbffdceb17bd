package audit

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// ErrUnusable is wrapped by errors of a log that can take no records until it is
// opened again: what is on the disk is not known any more.
var ErrUnusable = errors.New("audit log needs to be opened again")

// maxGather is how many records a group may have for its leader to wait for more.
const maxGather = 256

// DefaultFileSize is where a file is full.
const DefaultFileSize = 64 << 20

// Options of a [Log]. The zero value is usable.
type Options struct {
	FileSize int64 // begin a new file at this size; default DefaultFileSize
	// Adopt accepts a log whose head is missing or does not fit: one that was
	// restored, or moved by hand. What cannot be read is put aside, as after a
	// power cut, and a record says so.
	Adopt bool
	Now   func() time.Time // for events without a time; default time.Now
}

// Log appends records. Its methods may be called from many goroutines.
type Log struct {
	opts Options
	disk disk

	mu     sync.Mutex
	next   *group // those who came while the disk was busy
	head   Head   // as of the last group that was synced
	closed bool
	broken error // why no record can be written any more
	failed error // why the last record, or trial, was not written
	tried  time.Time

	syncs atomic.Uint64 // of records

	turn chan struct{} // held by the one who writes
	buf  []byte        // of the holder of turn
}

// group is the records that share one write.
type group struct {
	members [][]byte
	done    chan struct{}
	err     error // set before done is closed
}

func newGroup() *group { return &group{done: make(chan struct{})} }

// Append writes a record and returns when it is synced.
func (l *Log) Append(e Event) error {
	if e.Time.IsZero() {
		e.Time = l.opts.Now()
	}
	members := encode(e)
	l.mu.Lock()
	if err := l.unusable(); err != nil {
		l.mu.Unlock()
		return err
	}
	g := l.next
	g.members = append(g.members, members)
	first := len(g.members) == 1
	l.mu.Unlock()

	if !first { // who was takes all of the group there
		<-g.done
		return g.err
	}
	l.turn <- struct{}{}
	l.lead(g)
	<-l.turn
	return g.err
}

// lead commits g, unless Close did.
func (l *Log) lead(g *group) {
	l.gather(g)
	l.mu.Lock()
	if l.next != g {
		l.mu.Unlock()
		return
	}
	l.next = newGroup()
	head, broken := l.head, l.broken
	l.mu.Unlock()

	if g.err = broken; broken == nil {
		head, g.err = l.commit(head, g.members)
	}
	l.mu.Lock()
	if l.head = head; errors.Is(g.err, ErrUnusable) {
		l.broken = g.err
	}
	l.failed, l.tried = g.err, time.Now()
	l.mu.Unlock()
	close(g.done)
}

// Err says why the log takes no records: until it is opened again, or, with a full
// disk, until one is written or [Log.Probe] finds room. It is what was found last.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.unusable(); err != nil {
		return err
	}
	return l.failed
}

// idle is how long ago a record must have been written for Probe to try the disk.
const idle = time.Second

// Probe finds out whether the disk takes a record, unless one was written just now:
// it writes a file beside the log, and removes it. It returns what Err does.
func (l *Log) Probe() error {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	l.mu.Lock()
	done := l.unusable() != nil || l.failed == nil && time.Since(l.tried) < idle
	l.mu.Unlock()
	if !done {
		err := l.disk.probe()
		l.mu.Lock()
		l.failed, l.tried = err, time.Now()
		l.mu.Unlock()
	}
	return l.Err()
}

// Free returns how many bytes the log's file system has left for it.
func (l *Log) Free() (int64, error) { return l.disk.free() }

func (l *Log) unusable() error {
	if l.closed {
		return fmt.Errorf("%w: it was closed", ErrUnusable)
	}
	return l.broken
}

// gather lets those run who are ready to, as long as they join the group: a sync
// costs the processor as much as some answers, so a busy one saves the most. No
// one sleeps, and with nobody ready it returns at once.
func (l *Log) gather(g *group) {
	for n, before := -1, -2; n > before && n < maxGather; {
		runtime.Gosched()
		l.mu.Lock()
		before, n = n, len(g.members)
		l.mu.Unlock()
	}
}

// commit brings a group to the disk. After an error the head is as before: if
// the disk could be brought back to it too, the next group may succeed.
func (l *Log) commit(head Head, members [][]byte) (Head, error) {
	if l.disk.size >= l.opts.FileSize {
		if err := l.disk.rotate(head); err != nil {
			return head, fmt.Errorf("audit log: begin a new file: %w", err)
		}
	}
	l.buf = l.buf[:0]
	after := head
	for _, m := range members {
		l.buf, after = link(l.buf, after, m)
	}
	l.syncs.Add(1)
	if undone, err := l.disk.append(l.buf, after); err != nil {
		if !undone {
			return head, fmt.Errorf("%w: %w", ErrUnusable, err)
		}
		return head, fmt.Errorf("audit log: %w", err)
	}
	return after, nil
}

// Syncs returns how often records were synced since the log was opened: many of
// them share one.
func (l *Log) Syncs() uint64 { return l.syncs.Load() }

// Head returns the last record that is synced.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Close waits for the group that is being written and gives the log free. It may
// be called again.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	g := l.next
	l.mu.Unlock()
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	if len(g.members) > 0 {
		l.lead(g)
	}
	return l.disk.close()
}
