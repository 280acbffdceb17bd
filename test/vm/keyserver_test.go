//go:build vm

package vm_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/test/vm/machine"
)

// hostAddress is what machines with a network call the host.
const hostAddress = "10.0.2.2"

// networkArgs are QEMU's for a machine with a network in which there is only the
// host, and networkWords the node daemon's.
func networkArgs() []string {
	return []string{"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="}
}

func networkWords() []string {
	return []string{"noded.address=10.0.2.15/24", "noded.kms-authorities=/etc/kms/ca.crt"}
}

// makeKeyServer makes what key servers are started from, and has an image trust
// them.
func makeKeyServer(i *machine.Initramfs) error {
	cmd := exec.Command(image.cryptctl, "kms", "init", image.keyServer, "--host", hostAddress)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	i.Files["/etc/kms/ca.crt"] = filepath.Join(image.keyServer, "ca.crt")
	i.Modules = append(slices.Clone(i.Modules), "virtio_net")
	return nil
}

// keyServer is `cryptctl kms serve` on the host, and the way to it.
type keyServer struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	way  *way
	log  *log
	wait chan struct{} // closed when the process has ended
}

// newKeyServer starts a key server that knows no node.
func newKeyServer(t *testing.T) *keyServer {
	t.Helper()
	if _, err := image.noded(); err != nil {
		t.Fatal(err)
	}
	s := &keyServer{t: t, dir: filepath.Join(t.TempDir(), "kms"), way: newWay(t), log: &log{}}
	if out, err := exec.Command("cp", "-a", image.keyServer, s.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	path := filepath.Join(s.dir, "kms.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	free := strings.NewReplacer(`":4050"`, `"127.0.0.1:0"`, `"127.0.0.1:4051"`, `"127.0.0.1:0"`, `"127.0.0.1:4052"`, `""`)
	if err := os.WriteFile(path, []byte(free.Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("the key server's log:\n%s", s.log)
		}
	})
	s.start()
	return s
}

// start starts the process, and leads the way to it.
func (s *keyServer) start(flags ...string) {
	s.t.Helper()
	s.log.reset()
	s.cmd, s.wait = exec.Command(image.cryptctl, append([]string{"kms", "serve", s.dir}, flags...)...), make(chan struct{})
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		s.cmd.Wait()
		close(s.wait)
	}()
	s.way.lead(s.address("nodes"))
}

// address is where the process listens.
func (s *keyServer) address(whom string) string {
	s.t.Helper()
	listens := regexp.MustCompile(`msg=listening for=` + whom + ` address=(\S+)`)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if found := listens.FindStringSubmatch(s.log.String()); found != nil {
			return found[1]
		}
	}
	s.t.Fatalf("the key server does not listen for %s:\n%s", whom, s.log)
	return ""
}

// stop ends the process as an operator does.
func (s *keyServer) stop() {
	s.cmd.Process.Signal(os.Interrupt)
	<-s.wait
}

// operate runs an operator's command about the node.
func (s *keyServer) operate(command ...string) {
	s.t.Helper()
	argv := slices.Concat([]string{"kms", "node"}, command, []string{nodeUUID, "--dir", s.dir, "--server", s.address("operators")})
	if out, err := exec.Command(image.cryptctl, argv...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
}

// audited fails unless the audit log is whole and has such a record.
func (s *keyServer) audited(record string) {
	s.t.Helper()
	if out, err := exec.Command(image.cryptctl, "kms", "audit", "verify", filepath.Join(s.dir, "audit")).CombinedOutput(); err != nil {
		s.t.Errorf("audit verify: %v: %s", err, out)
	}
	var all bytes.Buffer
	files, _ := filepath.Glob(filepath.Join(s.dir, "audit", "*"))
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			s.t.Error(err)
		}
		all.Write(text)
	}
	if !regexp.MustCompile(record).Match(all.Bytes()) {
		s.t.Errorf("no record of %q in the audit log:\n%s", record, &all)
	}
}

// key is the server as a node's key.
func (s *keyServer) key() string { return byKMS + "https://" + hostAddress + ":" + s.way.port }

// way is how machines come to a server: a port of the host.
type way struct {
	port string

	mu     sync.Mutex
	listen net.Listener // nil when nobody listens there
	to     string       // "": calls are taken, and nothing more is heard
	open   []net.Conn
}

func newWay(t *testing.T) *way {
	t.Helper()
	w := &way{}
	if err := w.accept("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	_, w.port, _ = net.SplitHostPort(w.listen.Addr().String())
	t.Cleanup(w.refuse)
	return w
}

func (w *way) accept(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	w.listen = l
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.pass(c)
		}
	}()
	return nil
}

// lead lets calls come to a server.
func (w *way) lead(to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = to
	w.hangUp()
	if w.listen == nil {
		w.accept("127.0.0.1:" + w.port)
	}
}

// refuse has calls refused.
func (w *way) refuse() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hangUp()
	if w.listen != nil {
		w.listen.Close()
		w.listen = nil
	}
}

// silence takes calls, and says nothing.
func (w *way) silence() { w.lead("") }

func (w *way) hangUp() {
	for _, c := range w.open {
		c.Close()
	}
	w.open = nil
}

// pass carries a call.
func (w *way) pass(from net.Conn) {
	w.mu.Lock()
	to := w.to
	w.open = append(w.open, from)
	w.mu.Unlock()
	if to == "" {
		return // until someone hangs up
	}
	defer from.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		io.Copy(server, from)
		server.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(from, server)
}

// log is what a process writes.
type log struct {
	mu   sync.Mutex
	text []byte
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	return len(p), nil
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

func (l *log) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = nil
}
