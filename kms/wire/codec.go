package wire

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Codec is gRPC's codec for messages that may hold keys: what a message is encoded
// to and decoded from is wiped when gRPC is done with it. What HTTP/2 and TLS make
// of it is out of its reach.
type Codec struct{}

// Name implements encoding.CodecV2. It is that of gRPC's own, whose bytes are the
// same.
func (Codec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("a message is %T, which has no encoding", v)
	}
	pool := wiping{mem.DefaultBufferPool()}
	buf := pool.Get(max(proto.Size(m), smallest))
	out, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend((*buf)[:0], m)
	if err != nil {
		pool.Put(buf)
		return nil, fmt.Errorf("encode a message: %w", err)
	}
	*buf = out // of the same memory: it had the size
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("a message is %T, which has no encoding", v)
	}
	whole := data.MaterializeToBuffer(wiping{mem.DefaultBufferPool()})
	defer whole.Free()
	// The bytes are this message's alone, and nobody reads them again.
	defer func() {
		clear(whole.ReadOnlyData())
		for _, part := range data {
			clear(part.ReadOnlyData())
		}
	}()
	if err := proto.Unmarshal(whole.ReadOnlyData(), m); err != nil {
		return fmt.Errorf("decode a message: %w", err)
	}
	return nil
}

// smallest is the size in bytes from which on gRPC gives a buffer back to its pool,
// and so to us.
const smallest = 1<<10 + 1

// wiping is a pool that wipes what it gets back.
type wiping struct{ mem.BufferPool }

// Put implements mem.BufferPool.
func (w wiping) Put(b *[]byte) {
	clear((*b)[:cap(*b)])
	w.BufferPool.Put(b)
}
