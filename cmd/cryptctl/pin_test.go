package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/secret"
)

// stdin makes f the standard input of this process, for a test that is not parallel.
func stdin(t *testing.T, f *os.File) {
	t.Helper()
	old := os.Stdin
	os.Stdin = f
	t.Cleanup(func() { os.Stdin = old })
}

// wantPIN gets the PIN within patience, under a context of its own.
func wantPIN(t *testing.T, p *pinSource, want string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	pin, err := p.get(ctx)
	if err != nil || string(pin.Bytes()) != want {
		t.Errorf("PIN of %d bytes, %v; want %q", pin.Len(), err, want)
	}
	pin.Wipe()
}

// TestPINOutlivesAnAttempt: what comes through a pipe is for the attempts that
// follow, too, when the one that began to read it has ended; and none waits
// longer than its own time.
func TestPINOutlivesAnAttempt(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin(t, r)
	p := pinSource{file: "-"}
	waits := make(chan error, 1)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	go func() {
		pin, err := p.get(ctx)
		if pin.Wipe(); err == nil {
			err = errors.New("a PIN from nowhere")
		}
		waits <- err
	}()
	short, stopShort := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stopShort()
	ended := make(chan error, 1)
	go func() {
		_, err := p.get(short)
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an attempt whose time was over: %v", err)
		}
	case <-time.After(time.Second):
		t.Error("an attempt waits for the PIN longer than its time")
	}
	stop()
	if err := <-waits; !errors.Is(err, context.Canceled) {
		t.Errorf("an attempt that was given up: %v", err)
	}
	if _, err := w.WriteString("1234"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	wantPIN(t, &p, "1234")
	wantPIN(t, &p, "1234")
}

// TestPINAfterAFailure: a file that is not there yet is read by the next attempt.
// The rest of a stdin that was too long is not taken for the PIN.
func TestPINAfterAFailure(t *testing.T) {
	dir := t.TempDir()
	p := pinSource{file: filepath.Join(dir, "pin")}
	if _, err := p.get(t.Context()); err == nil {
		t.Error("no error without a file")
	}
	write(t, p.file, "1234")
	wantPIN(t, &p, "1234")

	long := filepath.Join(dir, "long")
	write(t, long, "")
	if err := os.Truncate(long, maxKeyFile+8); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(long)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stdin(t, f)
	p = pinSource{file: "-"}
	for range 2 {
		if pin, err := p.get(t.Context()); !errors.Is(err, secret.ErrTooLong) {
			t.Errorf("PIN of %d bytes, %v", pin.Len(), err)
		}
	}
}
