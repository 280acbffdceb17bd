package main

import (
	"context"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cryptctl/cryptctl/secret"
)

// settle is how long the end of a pipe waits for a signal. ^C ends who writes into
// the pipe, too, and that may be seen before the signal is.
const settle = 50 * time.Millisecond

// readInput reads all of a file of at most limit bytes, stdin for "-". The error
// for more is a [secret.ErrTooLong]. A signal ends the wait, and what had come by
// then is not taken for all.
func readInput(ctx context.Context, path string, limit int) (*secret.Bytes, error) {
	return awaitInput(ctx, func() (*secret.Bytes, error) {
		if path == "-" {
			return secret.Read(os.Stdin, limit)
		}
		return readFile(path, limit)
	}, path)
}

// readFile is readInput for what is a file always.
func readFile(path string, limit int) (*secret.Bytes, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return secret.Read(f, limit)
}

// awaitInput waits for a function that reads these inputs, and returns an error
// when a signal came until then: the end of a pipe may be that of who wrote into
// it. What was read is wiped then.
func awaitInput[T any](ctx context.Context, read func() (T, error), inputs ...string) (T, error) {
	v, err := interruptible(ctx, read)
	if slices.ContainsFunc(inputs, isPipe) {
		select {
		case <-ctx.Done():
		case <-time.After(settle):
		}
	}
	return unlessEnded(ctx, v, err)
}

// isPipe reports whether an input, as a file or @file, is a pipe or socket.
func isPipe(input string) bool {
	path := strings.TrimPrefix(input, "@")
	info, err := os.Stat(path)
	if path == "-" {
		info, err = os.Stdin.Stat()
	}
	return err == nil && info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0
}
