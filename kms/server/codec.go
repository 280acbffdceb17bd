package server

import (
	"google.golang.org/grpc/mem"

	"github.com/cryptctl/cryptctl/kms/wire"
)

// codec is that of the wire, and wipes what nodes are answered once it is encoded.
type codec struct{ wire.Codec }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*wire.Response); ok {
		defer clear(r.GetData())
	}
	return c.Codec.Marshal(v)
}
