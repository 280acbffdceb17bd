package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/kek/kektest"
	"github.com/cryptctl/cryptctl/kms/server"
)

// serving is a key server in this process.
type serving struct {
	t    *testing.T
	dir  string
	mu   sync.Mutex
	text bytes.Buffer // its log
	stop func()
}

// Write implements io.Writer.
func (s *serving) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *serving) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// serveDir serves a directory, on other ports, with more in its configuration.
func serveDir(t *testing.T, dir string, change func(config string) string) *serving {
	t.Helper()
	path := filepath.Join(dir, kmsConfigName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range []string{":4050", "127.0.0.1:4051", "127.0.0.1:4052"} {
		text = bytes.ReplaceAll(text, fmt.Appendf(nil, "%q", old), []byte(`"127.0.0.1:0"`))
	}
	if err := os.WriteFile(path, []byte(change(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := readKMSConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &serving{t: t, dir: dir}
	k := &kmsServer{config: config, log: slog.New(slog.NewTextHandler(s, nil))}
	if err := k.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.serve(ctx, func(*server.Options) {}) }()
	s.stop = sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		k.close()
	})
	t.Cleanup(s.stop)
	return s
}

// address waits until it listens.
func (s *serving) address(front string) string {
	s.t.Helper()
	var m []string
	s.eventually("it listens", func() bool {
		m = regexp.MustCompile(`listening for=` + front + ` address=(\S+)`).FindStringSubmatch(s.log())
		return m != nil
	})
	return m[1]
}

func (s *serving) eventually(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("never: %s\n%s", what, s.log())
		}
	}
}

func (s *serving) get(path string) (int, string) {
	s.t.Helper()
	r, err := http.Get("http://" + s.address("metrics") + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// node is our provider towards it.
func (s *serving) node() *kms.Provider {
	s.t.Helper()
	ca, err := os.ReadFile(filepath.Join(s.dir, "ca.crt"))
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := kms.New(kms.Options{Endpoints: []string{"https://" + s.address("nodes")}, NodeUUID: nodeUUID, Authorities: ca, Budget: 3 * time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// initKMS is kms init --enrol open.
func initKMS(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "kms")
	cmd := root()
	cmd.SetArgs([]string{"kms", "init", dir, "--enrol", "open", "--host", "127.0.0.1"})
	cmd.SetOut(io.Discard)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestServeTransitFake: a server with its key in a Vault that is sealed starts,
// says so, and answers when the Vault does.
func TestServeTransitFake(t *testing.T) {
	t.Parallel()
	vault := &kektest.Transit{}
	at := vault.Start(t)
	vault.Answers(http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`)
	s := serveDir(t, initKMS(t), func(config string) string {
		begin, end := strings.Index(config, "kek:\n"), strings.Index(config, "# Instead, a key of Vault")
		return config[:begin] + fmt.Sprintf("kek:\n  transit:\n    address: %q\n    mount: %q\n    key: %q\n    token_file: %q\n    authorities: %q\n",
			at.URL, kektest.Mount, kektest.Key, at.TokenFile, at.CAFile) + config[end:]
	})
	s.eventually("it says why", func() bool {
		code, text := s.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(text, "Vault is sealed")
	})
	_, _, err := s.node().Enroll(t.Context(), keys.Request{})
	if keys.Class(err) != keys.ErrUnavailable {
		t.Errorf("a node: %v", err)
	}
	vault.Answers(0, "")
	s.eventually("it is ready", func() bool { code, _ := s.get("/readyz"); return code == http.StatusOK })
	pass, token, err := s.node().Enroll(t.Context(), keys.Request{})
	if err != nil {
		t.Fatal(err)
	}
	defer pass.Wipe()
	got, err := s.node().Recover(t.Context(), keys.Request{}, token)
	if err != nil || !got.Equal(pass) {
		t.Errorf("another key, or %v", err)
	}
	got.Wipe()
	s.eventually("the log says so", func() bool {
		return strings.Contains(s.log(), `level=INFO msg="available again" part="key-encryption key"`)
	})
	if text := s.log(); strings.Contains(text, kektest.Token) || strings.Count(text, `level=ERROR msg="not available"`) != 1 {
		t.Errorf("the log:\n%s", text)
	}
}

// TestServeWithoutEtcd: a server whose cluster is away starts, says that it asks
// in plaintext, and tells nodes to come later.
func TestServeWithoutEtcd(t *testing.T) {
	t.Parallel()
	s := serveDir(t, initKMS(t), func(config string) string {
		return strings.Replace(config, "\nstore: nodes.db\n", "\nstore: {etcd: {endpoints: ['http://127.0.0.1:1'], timeout: 300ms}}\n", 1)
	})
	s.eventually("it says why", func() bool {
		code, text := s.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(text, "store: etcd: ")
	})
	if _, _, err := s.node().Enroll(t.Context(), keys.Request{}); keys.Class(err) != keys.ErrUnavailable {
		t.Errorf("a node: %v", err)
	}
	if !strings.Contains(s.log(), "level=WARN msg=\"etcd is asked without TLS") {
		t.Errorf("the log:\n%s", s.log())
	}
	if _, err := os.Stat(filepath.Join(s.dir, "nodes.db")); err == nil {
		t.Error("there is a file for nodes, too")
	}
}

// TestKeysetPassphraseIsAsked: twice by kms init, once by each start, and never
// shown.
func TestKeysetPassphraseIsAsked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := onTerminal(t, dir, []string{"kms", "init", "fleet", "--host", "127.0.0.1", "--passphrase-file", "-"}, nil)
	s.answer("New passphrase: ", spell+" of the keyset")
	s.answer("the same again: ", spell+" of the keyset")
	s.expect("fleet is ready")
	s.ends(0)
	path := filepath.Join(dir, "fleet", kmsConfigName)
	text, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(text, []byte("\n  passphrase: ask\n")) {
		t.Fatalf("%v: %s", err, text)
	}
	text = regexp.MustCompile(`listen: ".*"`).ReplaceAll(text, []byte(`listen: "127.0.0.1:0"`))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}

	s = onTerminal(t, dir, []string{"kms", "serve", "fleet"}, nil)
	s.answer("kek.json: ", spell+" of something else")
	s.expect("wrong passphrase or key file")
	s.ends(exitFailure)
	s = onTerminal(t, dir, []string{"kms", "serve", "fleet"}, nil)
	s.answer("kek.json: ", spell+" of the keyset")
	s.expect("listening for=nodes")
	s.types("\x03")
	s.expect("shutting down")
	s.ends(0)
}
