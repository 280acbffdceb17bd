package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/secret"
)

// pinSource is where the PIN of a TPM comes from. A terminal is asked each time,
// so that a new PIN is typed twice; what is read from a file or stdin is kept.
type pinSource struct {
	file  string
	mu    sync.Mutex // of the terminal, and of input
	input *pinInput
}

// pinInput is one read of the file. It goes on when the call that began it ends,
// whose time is that of one attempt: what came through a pipe cannot be read again.
type pinInput struct {
	done chan struct{} // closed when pin and err are there
	pin  *secret.Bytes
	err  error
}

func (p *pinSource) flag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.file, "pin-file", "", "`FILE` with the PIN of the TPM, every byte of it; - is stdin, or asks on a terminal")
}

// get returns the PIN, which the caller wipes.
func (p *pinSource) get(ctx context.Context) (*secret.Bytes, error) {
	if isAsked(p.file) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return ask(ctx, "PIN of the TPM: ", "the key has a PIN: give it with --pin-file")
	}
	in := p.begin(ctx)
	select {
	case <-in.done:
	case <-ctx.Done():
	}
	if ctx.Err() != nil { // as in awaitInput, also when the input has ended
		return nil, fmt.Errorf("wait for the PIN of the TPM: %w", context.Cause(ctx))
	}
	if in.err != nil {
		return nil, in.err
	}
	return in.pin.Clone(), nil
}

// begin returns the read of the file, and starts it if there is none. A file that
// could not be read is read again; of stdin only the rest would be left.
func (p *pinSource) begin(ctx context.Context) *pinInput {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.input != nil && (p.file == "-" || !p.input.failed()) {
		return p.input
	}
	in := &pinInput{done: make(chan struct{})}
	p.input = in
	go func() {
		defer close(in.done)
		in.pin, in.err = readKey(context.WithoutCancel(ctx), p.file)
	}()
	return in
}

func (in *pinInput) failed() bool {
	select {
	case <-in.done:
		return in.err != nil
	default:
		return false
	}
}
