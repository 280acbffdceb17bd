package server_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/server"
	"github.com/cryptctl/cryptctl/secret"
)

// childVar is the folder that a process of its own serves; see TestKill.
const childVar = "KMS_SERVER_TEST_CHILD"

func TestMain(m *testing.M) {
	dir := os.Getenv(childVar)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := child(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child serves a folder until it is killed.
func child(dir string) error {
	b, err := openBackend(context.Background(), dir, policy.Rules{Enrol: policy.Open})
	if err != nil {
		return err
	}
	s, err := server.New(server.Options{Keeper: b.keeper, Plaintext: true, Audit: b.log})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return s.ServeNodes(l)
}

func spawn(t *testing.T, dir string) (address string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	t.Cleanup(kill)
	if address, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(address), kill
}

// TestKill: whatever was acknowledged before a kill -9 opens afterwards.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	type sealed struct {
		node  string
		pass  *secret.Bytes
		token []byte
	}
	var mu sync.Mutex
	var all []sealed
	for round := range 3 {
		address, kill := spawn(t, dir)
		time.AfterFunc(time.Duration(200+100*round)*time.Millisecond, kill)
		var clients sync.WaitGroup
		for c := range 8 {
			clients.Go(func() {
				for n := 0; ; n++ {
					node := fmt.Sprintf("01234567-89ab-cdef-%04x-%04x%08x", round, c, n)
					p, err := kms.New(kms.Options{Endpoints: []string{"grpc://" + address}, NodeUUID: node, Budget: 200 * time.Millisecond})
					if err != nil {
						t.Error(err)
						return
					}
					pass, token, err := p.Enroll(t.Context(), keys.Request{})
					if err != nil {
						return // killed
					}
					mu.Lock()
					all = append(all, sealed{node, pass, token})
					mu.Unlock()
				}
			})
		}
		clients.Wait()
		kill()
	}
	if len(all) < 30 {
		t.Fatalf("only %d seals", len(all))
	}
	address, _ := spawn(t, dir)
	for _, s := range all {
		opens(t, provider(t, address, s.node, nil), s.token, s.pass)
		s.pass.Wipe()
	}
}
