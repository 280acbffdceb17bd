package main

import (
	"context"
	"sync"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/secret"
)

// pinSource is where the PIN of a TPM comes from. A terminal is asked each time,
// so that a new PIN is typed twice; what is read from stdin is kept.
type pinSource struct {
	file string
	once sync.Mutex
	read *secret.Bytes
}

func (p *pinSource) flag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.file, "pin-file", "", "`FILE` with the PIN of the TPM, every byte of it; - is stdin, or asks on a terminal")
}

// get returns the PIN, which the caller wipes.
func (p *pinSource) get(ctx context.Context) (*secret.Bytes, error) {
	p.once.Lock()
	defer p.once.Unlock()
	if isAsked(p.file) {
		return ask(ctx, "PIN of the TPM: ", "the key has a PIN: give it with --pin-file")
	}
	if p.read == nil {
		var err error
		if p.read, err = readKey(ctx, p.file); err != nil {
			return nil, err
		}
	}
	return p.read.Clone(), nil
}
