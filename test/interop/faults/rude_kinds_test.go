package faults_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"golang.org/x/net/http2"
)

// kind is one way to misbehave on a connection. It returns when the connection
// shall be kept as it is, or is closed.
type kind struct {
	name string
	n    int // connections
	do   func(ctx context.Context, r *rude, config *tls.Config) error

	silent bool // it never finishes a handshake
}

// greeted is a kind that has begun HTTP/2 first.
func greeted(do func(ctx context.Context, r *rude) error) func(context.Context, *rude, *tls.Config) error {
	return func(ctx context.Context, r *rude, config *tls.Config) error {
		if err := r.handshake(ctx, config); err != nil {
			return err
		}
		if err := r.greet(); err != nil {
			return err
		}
		return do(ctx, r)
	}
}

// drip does something every tenth of a second, until it fails or the test is
// over.
func drip(ctx context.Context, do func() error) error {
	for {
		if err := do(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// kinds are all ways but random bytes.
func kinds() []kind {
	return []kind{
		{"half-open after TCP", 100, func(_ context.Context, r *rude, _ *tls.Config) error { return r.vanish() }, true},
		{"half-open after a call began", 100, greeted(func(_ context.Context, r *rude) error {
			if err := r.open(1); err != nil {
				return err
			}
			return r.vanish()
		}), false},
		{"slow in the handshake", 100, func(ctx context.Context, r *rude, _ *tls.Config) error {
			hello := []byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}
			return drip(ctx, func() error {
				b := byte(0)
				if len(hello) > 0 {
					b, hello = hello[0], hello[1:]
				}
				_, err := r.Write([]byte{b})
				return err
			})
		}, true},
		{"slow in the headers", 100, greeted(func(ctx context.Context, r *rude) error {
			if err := r.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.header()}); err != nil {
				return err
			}
			return drip(ctx, func() error { return r.frames.WriteContinuation(1, false, nil) })
		}), false},
		{"endless headers", 50, greeted(endlessHeaders), false},
		{"slow in the body", 100, greeted(func(ctx context.Context, r *rude) error {
			for i := range 20 {
				if err := r.open(uint32(2*i + 1)); err != nil {
					return err
				}
			}
			return drip(ctx, func() error { return r.frames.WriteData(1, false, nil) })
		}), false},
		{"does not read", 20, greeted(deaf), false},
		{"resets its calls", 20, greeted(resets), false},
		{"oversized", 100, greeted(func(_ context.Context, r *rude) error { return r.message(0, 1<<30, make([]byte, 16<<10)) }), false},
		{"compressed", 100, greeted(func(_ context.Context, r *rude) error { return r.message(1, 100, make([]byte, 100)) }), false},
		{"malformed", 100, greeted(func(_ context.Context, r *rude) error { return r.message(0, 100, noise(100)) }), false},
		{"frame of 16 MiB", 50, greeted(func(_ context.Context, r *rude) error {
			_, err := r.Write([]byte{0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1})
			return err
		}), false},
	}
}

// endlessHeaders sends header after header in one block.
func endlessHeaders(ctx context.Context, r *rude) error {
	if err := r.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.header()}); err != nil {
		return err
	}
	// A literal field that is not indexed: a name of 1 byte, a value of 8000.
	field := append([]byte{0x00, 0x01, 'x', 0x7f, 0xc1, 0x3d}, make([]byte, 8000)...)
	for range 2000 { // 16 MB
		if err := r.frames.WriteContinuation(1, false, field); err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// deaf asks for answers, of calls and of pings, and takes none.
func deaf(ctx context.Context, r *rude) error {
	if err := r.tcp.SetReadBuffer(1024); err != nil {
		return err
	}
	limit := time.Now().Add(3 * time.Second)
	_ = r.SetWriteDeadline(limit)
	for stream := uint32(1); time.Now().Before(limit) && ctx.Err() == nil; stream += 2 {
		if err := r.open(stream); err != nil {
			return err
		}
		if err := r.frames.WriteData(stream, true, append([]byte{0, 0, 0, 0, 20}, noise(20)...)); err != nil {
			return err
		}
		for range 20 {
			if err := r.frames.WritePing(false, [8]byte{1}); err != nil {
				return err
			}
		}
	}
	return nil
}

// resets opens calls and cancels them, as fast as it can.
func resets(ctx context.Context, r *rude) error {
	for i := range uint32(2000) {
		if err := r.open(2*i + 1); err != nil || ctx.Err() != nil {
			return err
		}
		if err := r.frames.WriteRSTStream(2*i+1, http2.ErrCodeCancel); err != nil {
			return err
		}
	}
	return nil
}

// message makes a call with a body that says of itself what it likes.
func (r *rude) message(flag byte, size uint32, body []byte) error {
	if err := r.open(1); err != nil {
		return err
	}
	text := binary.BigEndian.AppendUint32([]byte{flag}, size)
	return r.frames.WriteData(1, true, append(text, body[:min(len(body), 16<<10-len(text))]...))
}

func noise(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rand.Uint32())
	}
	return p
}
