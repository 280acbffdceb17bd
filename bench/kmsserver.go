package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// served is a server in a process of its own: a key server, or the empty handler.
type served struct {
	cmd   *exec.Cmd
	at    map[string]string // addresses, by whom it listens for
	ended chan struct{}     // closed when it says no more

	mu  sync.Mutex
	log bytes.Buffer // what it says, for an error
}

// startServer starts a process that logs where it listens, as kms serve does, and
// returns when it listens for the last one.
func startServer(ctx context.Context, last string, argv ...string) (*served, error) {
	s := &served{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...), at: map[string]string{}, ended: make(chan struct{})}
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	said, err := s.cmd.StderrPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go s.read(said, last, ready)
	select {
	case <-ready:
		return s, nil
	case <-s.ended:
	case <-time.After(20 * time.Second):
	}
	err = errors.Join(fmt.Errorf("%s: it does not say where it listens", strings.Join(argv, " ")), s.stop())
	return nil, fmt.Errorf("%w\n%s", err, s.said())
}

func (s *served) read(said io.Reader, last string, ready chan<- struct{}) {
	defer close(s.ended)
	for lines := bufio.NewScanner(said); lines.Scan(); {
		s.mu.Lock()
		s.log.WriteString(lines.Text() + "\n")
		s.mu.Unlock()
		who, address := listening(lines.Text())
		if who == "" || s.at[last] != "" {
			continue
		}
		if s.at[who] = address; who == last {
			close(ready)
		}
	}
}

// listening reads a line such as
//
//	time=... level=INFO msg=listening for=nodes address=127.0.0.1:4050
func listening(text string) (who, address string) {
	_, rest, ok := strings.Cut(text, "msg=listening for=")
	if !ok {
		return "", ""
	}
	who, address, _ = strings.Cut(rest, " address=")
	return who, address
}

func (s *served) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// stop ends the process as an operator does, and waits for it.
func (s *served) stop() error {
	kill := time.AfterFunc(30*time.Second, func() { s.cmd.Process.Kill() })
	defer kill.Stop()
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // fails when it has ended
	<-s.ended
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w\n%s", s.cmd.Path, err, s.said())
	}
	return nil
}

// busy is the processor time that the process took: its clock of clock_gettime(2),
// whose number the kernel makes of the process' (clock_getcpuclockid(3)).
func (s *served) busy() (time.Duration, error) {
	const scheduler = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^s.cmd.Process.Pid<<3|scheduler), &ts); err != nil {
		return 0, fmt.Errorf("processor time of %s: %w", s.cmd.Path, err)
	}
	return time.Duration(ts.Nano()), nil
}

// peak is the most resident memory the process had.
func (s *served) peak() (bytes int64, err error) {
	text := field(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid), "VmHWM")
	kib, err := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("peak memory of %s: %q", s.cmd.Path, text)
	}
	return kib << 10, nil
}

// counts reads the counters and gauges of a key server.
func (s *served) counts(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.at["metrics"]+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return readMetrics(res.Body)
}

// readMetrics reads Prometheus' text format, as far as metrics without labels go.
func readMetrics(r io.Reader) (map[string]float64, error) {
	all := map[string]float64{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || strings.ContainsAny(name, "#{") {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("metric %s: %w", name, err)
		}
		all[name] = n
	}
	return all, lines.Err()
}

// limitFiles raises the number of files that this process and those it starts may
// open, as far as it may, and returns it.
func limitFiles() (int, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	l.Cur = l.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, os.NewSyscallError("setrlimit", err)
	}
	return int(min(l.Cur, 1<<30)), nil
}
