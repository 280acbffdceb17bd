package vault_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
)

// run is a command that has to go well.
func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// serveOver makes a directory with kms init, gives it Vault's key, and serves it. It
// returns the directory and the nodes' address.
func serveOver(t *testing.T, s *server, program, key string) (dir, address string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "kms")
	run(t, "", program, "kms", "init", dir, "--host", "127.0.0.1", "--enrol", "open")
	path := filepath.Join(dir, "kms.yaml")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^( +listen: ).*`).ReplaceAllString(string(raw), `$1"127.0.0.1:0"`)
	begin, end := strings.Index(text, "\nkek:\n"), strings.Index(text, "# Instead, a key of Vault")
	if begin < 0 || end < begin {
		t.Fatalf("the configuration reads differently:\n%s", text)
	}
	o := s.options(key)
	s.write(path, text[:begin]+fmt.Sprintf("\nkek:\n  transit: {address: %q, mount: %q, key: %q, derived: %v, token_file: %q, authorities: %q}\n",
		o.Address, o.Mount, o.Key, o.Derived, s.token(use, look), o.CAFile)+text[end:])

	cmd := exec.Command(program, "kms", "serve", dir)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	found, said := make(chan string, 1), make(chan string, 1)
	go func() {
		var all strings.Builder
		at := regexp.MustCompile(`msg=listening.* for=nodes.* address=(\S+)|msg=listening.* address=(\S+).* for=nodes`)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Fprintln(&all, lines.Text())
			if m := at.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1] + m[2]
			}
		}
		said <- all.String()
	}()
	select {
	case address = <-found:
	case text := <-said:
		t.Fatalf("kms serve ended:\n%s", text)
	case <-time.After(30 * time.Second):
		t.Fatal("kms serve does not come to listen")
	}
	return dir, address
}

// TestServe: a node's key comes and goes through cryptctl kms serve and Vault, and
// not while Vault is sealed.
func TestServe(t *testing.T) {
	program := filepath.Join(t.TempDir(), "cryptctl")
	run(t, filepath.Join("..", "..", ".."), "go", "build", "-o", program, "./cmd/cryptctl")
	for _, key := range []string{plain, derived} {
		t.Run(key, func(t *testing.T) {
			s := start(t)
			dir, address := serveOver(t, s, program, key)
			ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
			if err != nil {
				t.Fatal(err)
			}
			node, err := kms.New(kms.Options{Endpoints: []string{"https://" + address}, NodeUUID: nodeUUID, Authorities: ca, Budget: 5 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			s.seal()
			if _, _, err := node.Enroll(t.Context(), keys.Request{}); keys.Class(err) != keys.ErrUnavailable {
				t.Errorf("sealed: %v", err)
			}
			s.open()
			pass, token, err := node.Enroll(t.Context(), keys.Request{})
			if err != nil {
				t.Fatal(err)
			}
			defer pass.Wipe()
			got, err := node.Recover(t.Context(), keys.Request{}, token)
			if err != nil || !got.Equal(pass) {
				t.Errorf("another key, or %v", err)
			}
			got.Wipe()
		})
	}
}
