package logging

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxKernel is more than the longest record of /dev/kmsg (printk.c,
// PRINTK_MESSAGE_MAX).
const maxKernel = 8 << 10

func openKernelLog() (io.ReadCloser, error) {
	return os.OpenFile("/dev/kmsg", os.O_RDONLY|syscall.O_NONBLOCK, 0) // so that Close ends a Read
}

// follower follows the kernel's log.
type follower struct {
	log   io.Reader
	ended chan struct{} // closed when it is to end
	end   func()        // which may be called again
	done  chan struct{} // closed when it ended
}

// followKernel begins or ends to follow the kernel's log. One that could not be
// read any more is opened again. Its caller holds s.mu.
func (s *Sender) followKernel(follow bool) {
	if f := s.kernel; f != nil && (!follow || over(f.done)) {
		f.end()
		<-f.done
		s.kernel = nil
	}
	if !follow || s.kernel != nil {
		return
	}
	log, err := s.opts.KernelLog()
	if err != nil {
		s.local.Warn("the kernel's log cannot be read and is not sent", "error", err)
		return
	}
	f := &follower{log: log, ended: make(chan struct{}), done: make(chan struct{})}
	f.end = sync.OnceFunc(func() {
		close(f.ended)
		log.Close()
	})
	s.kernel = f
	go func() {
		defer close(f.done)
		defer f.end()
		s.readKernel(f)
	}()
}

// readKernel sends the kernel's messages until its log is closed. While nobody has
// room for them they stay where they are.
func (s *Sender) readKernel(f *follower) {
	buf := make([]byte, maxKernel)
	for s.waitForRoom(f.ended) {
		n, err := f.log.Read(buf)
		switch {
		case errors.Is(err, syscall.EPIPE): // messages were overwritten before they were read
			s.local.Warn("messages of the kernel are lost: they came faster than they were sent")
			continue
		case errors.Is(err, fs.ErrClosed) || errors.Is(err, io.EOF):
			return
		case err != nil:
			s.local.Warn("the kernel's log cannot be read and is not sent", "error", err)
			return
		}
		m, ok := parseKernel(buf[:n])
		if !ok || m.seq < s.seen {
			continue
		}
		s.seen = m.seq + 1
		s.send(true, m.fields(time.Now().Add(-sinceBoot())))
	}
}

// waitForRoom waits until a destination of the kernel's messages has room for them;
// false when it was to end before that.
func (s *Sender) waitForRoom(ended <-chan struct{}) bool {
	for {
		if slices.ContainsFunc(s.queues(), func(q *queue) bool { return q.to.Kernel && q.hasRoom() }) {
			return true
		}
		select {
		case <-s.room:
		case <-ended:
			return false
		}
	}
}

// kernelMessage is one record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg).
type kernelMessage struct {
	priority int // facility * 8 + severity
	seq      uint64
	clock    uint64 // microseconds since the start
	text     string
}

// parseKernel reads "PRIORITY,SEQUENCE,CLOCK,...;TEXT", up to the newline after
// which its dictionary follows.
func parseKernel(record []byte) (m kernelMessage, ok bool) {
	head, rest, ok := bytes.Cut(record, []byte{';'})
	parts := strings.SplitN(string(head), ",", 4)
	if !ok || len(parts) < 3 {
		return m, false
	}
	priority, err := strconv.ParseUint(parts[0], 10, 16)
	if err != nil {
		return m, false
	}
	m.priority = int(priority)
	if m.seq, err = strconv.ParseUint(parts[1], 10, 63); err != nil {
		return m, false
	}
	if m.clock, err = strconv.ParseUint(parts[2], 10, 53); err != nil {
		return m, false
	}
	text, _, _ := bytes.Cut(rest, []byte{'\n'})
	m.text = unescape(text)
	return m, true
}

// unescape turns the \xNN of the kernel, for what cannot be printed and for the
// backslash, into what they stand for.
func unescape(text []byte) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) && text[i+1] == 'x' {
			if b, err := strconv.ParseUint(string(text[i+2:i+4]), 16, 8); err == nil {
				out.WriteByte(byte(b))
				i += 3
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return strings.ToValidUTF8(out.String(), "\uFFFD")
}

// fields are those that Talos gives a message of the kernel.
func (m kernelMessage) fields(start time.Time) fields {
	return fields{
		fieldMessage: m.text, fieldLevel: m.level(), "clock": m.clock, "seq": m.seq, "facility": m.facility(), "priority": severities()[m.priority%8],
		fieldTime: start.Add(time.Duration(m.clock) * time.Microsecond).UTC().Format(time.RFC3339Nano),
	}
}

// severities and facilities are the names of syslog(3).
func severities() [8]string {
	return [...]string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}
}

func (m kernelMessage) facility() string {
	names := [...]string{
		"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "security", "console", "solaris-cron",
		"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
	}
	if f := m.priority / 8; f < len(names) {
		return names[f]
	}
	return strconv.Itoa(m.priority / 8)
}

func (m kernelMessage) level() string {
	switch m.priority % 8 {
	case 0, 1, 2, 3:
		return "error"
	case 4:
		return "warn"
	case 5, 6:
		return "info"
	}
	return "debug"
}
