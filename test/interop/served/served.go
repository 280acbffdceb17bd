// Package served runs the key server as its users do: cryptctl kms init makes a
// directory, cryptctl kms serve is a process, which tests kill, stop, and talk to
// over TLS.
package served

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cryptctl/cryptctl/pki"
)

// patience is how long a start may take.
const patience = 30 * time.Second

// Build makes the program in a directory and returns its path.
func Build(dir string) (string, error) {
	path := filepath.Join(dir, "cryptctl")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/cryptctl")
	cmd.Dir = root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// root is the directory of the main module, seen from one of the tests.
func root() string {
	dir := "../.."
	for range 2 {
		if _, err := os.Stat(filepath.Join(dir, "cmd", "cryptctl")); err == nil {
			return dir
		}
		dir = filepath.Join("..", dir)
	}
	return dir
}

// Server is a directory, and the process that serves it while there is one.
type Server struct {
	Dir     string
	program string

	cmd       *exec.Cmd
	addresses map[string]string
	plaintext bool
	log       log
	ended     chan struct{}
}

// New makes a directory with kms init. Nodes enrol themselves; ports are chosen at
// each start.
func New(t testing.TB, program string) *Server {
	t.Helper()
	s := &Server{Dir: filepath.Join(t.TempDir(), "kms"), program: program}
	if out, err := exec.Command(program, "kms", "init", s.Dir, "--host", "127.0.0.1", "--enrol", "open").CombinedOutput(); err != nil {
		t.Fatalf("kms init: %v\n%s", err, out)
	}
	s.Set(t, `listen: ":4050"`, `listen: "127.0.0.1:0"`)
	s.Set(t, `listen: "127.0.0.1:4051"`, `listen: "127.0.0.1:0"`)
	s.Set(t, `listen: "127.0.0.1:4052"`, `listen: "127.0.0.1:0"`)
	t.Cleanup(s.Kill)
	return s
}

// Path is a file of the directory.
func (s *Server) Path(name string) string { return filepath.Join(s.Dir, name) }

// Set changes the one place of the configuration that reads old.
func (s *Server) Set(t testing.TB, old, now string) {
	t.Helper()
	path := s.Path("kms.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), old); n != 1 {
		t.Fatalf("%q stands %d times in the configuration", old, n)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, now, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Start starts the process, which must come to listen.
func (s *Server) Start(t testing.TB, flags ...string) {
	t.Helper()
	if err := s.TryStart(flags...); err != nil {
		t.Fatal(err)
	}
}

// TryStart starts the process and waits until it listens, or ended.
func (s *Server) TryStart(flags ...string) error {
	s.log = log{}
	s.addresses = map[string]string{}
	s.plaintext = strings.Contains(strings.Join(flags, " "), "plaintext")
	s.cmd = exec.Command(s.program, append([]string{"kms", "serve", s.Dir}, flags...)...)
	out, err := s.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.ended = make(chan struct{})
	listens := make(chan [2]string, 3)
	go s.follow(out, listens)
	limit := time.After(patience)
	for len(s.addresses) < 3 {
		select {
		case a := <-listens:
			s.addresses[a[0]] = a[1]
		case <-s.ended:
			return errors.New("kms serve: " + s.Log())
		case <-limit:
			s.Kill()
			return errors.New("kms serve does not come to listen: " + s.Log())
		}
	}
	return nil
}

// follow reads what the process says, to its end.
func (s *Server) follow(out io.Reader, listens chan<- [2]string) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		s.log.add(lines.Text())
		var name, address string
		for _, f := range strings.Fields(lines.Text()) {
			if v, ok := strings.CutPrefix(f, "for="); ok {
				name = v
			} else if v, ok := strings.CutPrefix(f, "address="); ok {
				address = v
			}
		}
		if strings.Contains(lines.Text(), "msg=listening") && len(listens) < cap(listens) {
			listens <- [2]string{name, address}
		}
	}
	_ = s.cmd.Wait()
	close(s.ended)
}

// log is the beginning of what a process said, and how much it was.
type log struct {
	mu   sync.Mutex
	text strings.Builder
	size int
}

func (l *log) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size += len(line) + 1; l.text.Len() < 64<<10 {
		l.text.WriteString(line + "\n")
	}
}

// Log is what the process said, at most the first 64 KiB.
func (s *Server) Log() string {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.text.String()
}

// LogSize is how many bytes it said.
func (s *Server) LogSize() int {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.size
}

// Kill is kill -9, and waits for the end. It may be called again.
func (s *Server) Kill() { s.signal(syscall.SIGKILL) }

// Stop ends the process as a service manager does.
func (s *Server) Stop() { s.signal(syscall.SIGTERM) }

func (s *Server) signal(sig syscall.Signal) {
	if s.ended == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig)
	<-s.ended
}

// Runs reports whether the process is there.
func (s *Server) Runs() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// PID is the process's number.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Address is where it listens for nodes, operators or metrics.
func (s *Server) Address(name string) string { return s.addresses[name] }

// Connect returns a connection for nodes. from, if it is not "", is the address
// that it comes from.
func (s *Server) Connect(t testing.TB, from string) *grpc.ClientConn {
	t.Helper()
	d := net.Dialer{}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	creds := insecure.NewCredentials()
	if !s.plaintext {
		creds = credentials.NewTLS(s.TLS(t))
	}
	cc, err := grpc.NewClient("passthrough:///"+s.Address("nodes"), grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) { return d.DialContext(ctx, "tcp", to) }))
	if err != nil {
		t.Fatal(err)
	}
	return cc
}

// TLS is the configuration of a client that trusts the server's authority.
func (s *Server) TLS(t testing.TB) *tls.Config {
	t.Helper()
	ca, err := os.ReadFile(s.Path("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pki.ParsePool(ca)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13, ServerName: "127.0.0.1", NextProtos: []string{"h2"}}
}

// Metric is a value of /metrics; -1 if it is not there.
func (s *Server) Metric(t testing.TB, name string) (value float64) {
	t.Helper()
	res, err := http.Get("http://" + s.Address("metrics") + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			return value
		}
	}
	return -1
}
