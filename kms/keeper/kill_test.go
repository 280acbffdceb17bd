package keeper_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/secret"
)

const killDir = "CRYPTCTL_TEST_KILL_DIR" // set: this process is the one to be killed

// TestMain runs the victim of TestKill in a process of its own.
func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		victim(dir)
	}
	os.Exit(m.Run())
}

// victim seals and unseals for many nodes, rotates their keys and the KEK, and
// prints each answer after it got it. It never ends by itself.
func victim(dir string) {
	b := startIn(processTB{}, dir, open())
	var out sync.Mutex
	say := func(text string) {
		out.Lock()
		defer out.Unlock()
		os.Stdout.WriteString(text + "\n")
	}
	for p := range 6 {
		go func() {
			for i := 0; ; i++ {
				node := fmt.Sprintf("01234567-89ab-cdef-0123-%04x%08x", p, rand.IntN(50))
				data := fmt.Sprintf("data %d of %d", i, p)
				raw, err := b.Seal(b.t.Context(), from(node), secret.Copy([]byte(data)))
				if err != nil {
					say("error: " + err.Error())
					continue
				}
				say(fmt.Sprintf("sealed %s %s %s", node, hex.EncodeToString(raw), hex.EncodeToString([]byte(data))))
				if got, err := b.Unseal(b.t.Context(), from(node), raw); err != nil || string(got.Bytes()) != data {
					say(fmt.Sprint("error: unseal: ", err))
				}
				if i%7 == 0 {
					if _, err := b.RotateKey(b.t.Context(), op, node); err != nil && !strings.Contains(err.Error(), "retire some") {
						say("error: " + err.Error())
					}
				}
			}
		}()
	}
	for {
		if err := operate(b); err != nil {
			say("error: " + err.Error())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// operate renews the KEK under the others, and forgets a node, for which the
// store's file is replaced.
func operate(b *bench) error {
	ctx := b.t.Context()
	_, err := b.keys.Rotate(ctx)
	if err == nil {
		_, err = b.Rewrap(ctx, op, nil)
	}
	if err == nil {
		err = b.Approve(ctx, op, nodeA, keeper.Approval{})
	}
	if err == nil {
		_, err = b.Seal(ctx, from(nodeA), secret.Random(32))
	}
	if err == nil {
		err = b.forget(nodeA, nodeA)
	}
	return err
}

// processTB is a testing.TB for a process that is no test.
type processTB struct{ testing.TB }

func (processTB) Helper()        {}
func (processTB) Cleanup(func()) {}
func (processTB) Fatal(args ...any) {
	fmt.Println("error:", fmt.Sprint(args...))
	os.Exit(1)
}

// Context is never done: the process is killed.
func (processTB) Context() context.Context { return context.Background() }

// TestKill kills the victim again and again. Every blob that was answered opens,
// and every answer is on record.
func TestKill(t *testing.T) {
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	dir := t.TempDir()
	type sealed struct{ node, raw, data string }
	var all []sealed
	for round := range rounds {
		before := len(all)
		for _, line := range killed(t, dir, time.Duration(50+rand.IntN(200))*time.Millisecond) {
			f := strings.Fields(line)
			if len(f) != 4 || f[0] != "sealed" {
				t.Fatalf("round %d: %s", round, line)
			}
			all = append(all, sealed{f[1], f[2], f[3]})
		}
		if round == rounds-1 {
			before = 0 // those of all rounds
		}
		b := startIn(t, dir, open())
		for _, s := range all[before:] {
			raw, err := hex.DecodeString(s.raw)
			b.ok(err)
			data, err := hex.DecodeString(s.data)
			b.ok(err)
			b.opens(s.node, raw, string(data))
		}
		b.stop() // verifies log and store
	}
	if len(all) < 20*rounds {
		t.Errorf("only %d seals in %d rounds: too few to show something", len(all), rounds)
	}
	names, err := filepath.Glob(filepath.Join(dir, "audit", "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	recorded := 0
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		recorded += bytes.Count(text, []byte(`"op":"seal"`))
	}
	if recorded < len(all) {
		t.Errorf("%d seals on record, %d were answered", recorded, len(all))
	}
}

// killed runs the victim for a while, kills it, and returns its whole lines.
func killed(t *testing.T, dir string, after time.Duration) (lines []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	first, err := r.ReadString('\n') // it works: now let it run
	if err != nil {
		t.Fatalf("the victim said nothing: %v", err)
	}
	timer := time.AfterFunc(after, func() { cmd.Process.Kill() })
	defer timer.Stop()
	lines = append(lines, strings.TrimSpace(first))
	for {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break // what has no line end was cut by the kill
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the victim ended by itself: %v", err)
	}
	return lines
}
