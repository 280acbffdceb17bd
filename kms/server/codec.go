package server

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that this one wraps
	"google.golang.org/grpc/mem"

	"github.com/cryptctl/cryptctl/kms/wire"
)

// codec is gRPC's own, and wipes what nodes are answered once it is encoded.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*wire.Response); ok {
		defer clear(r.GetData())
	}
	out, err := c.CodecV2.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode an answer: %w", err)
	}
	return out, nil
}

// wiping is gRPC's pool of message buffers, which are wiped before they are kept.
type wiping struct{ mem.BufferPool }

// Put implements mem.BufferPool.
func (w wiping) Put(b *[]byte) {
	clear((*b)[:cap(*b)])
	w.BufferPool.Put(b)
}
