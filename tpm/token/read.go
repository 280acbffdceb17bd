package token

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
)

// maxToken bounds the token as a whole: the whole JSON area of most headers is
// smaller.
const maxToken = 64 << 10

// maxBlob bounds one TPM structure or envelope. A TPM's buffer for a whole
// answer has 4096 bytes.
const maxBlob = 2048

// TypeOf returns the type of a token; "" when it cannot be read.
func TypeOf(raw json.RawMessage) string {
	var t struct {
		Type string `json:"type"`
	}
	if len(raw) > maxToken || json.Unmarshal(raw, &t) != nil {
		return ""
	}
	return t.Type
}

// decode reads a token of a type.
func decode(raw json.RawMessage, typ string, into any) error {
	if len(raw) > maxToken {
		return fmt.Errorf("the token has %d bytes, more than %d", len(raw), maxToken)
	}
	if got := TypeOf(raw); got != typ {
		return fmt.Errorf("the token is of type %q, not %q, or is no JSON object", got, typ)
	}
	return json.Unmarshal(raw, into)
}

// slotOf returns the one slot that a token names.
func slotOf(keyslots []string) (int, error) {
	if len(keyslots) != 1 {
		return 0, fmt.Errorf("the token names %d keyslots, not one", len(keyslots))
	}
	slot, err := strconv.Atoi(keyslots[0])
	if err != nil || slot < 0 || slot > 31 {
		return 0, fmt.Errorf("the token names keyslot %q", keyslots[0])
	}
	return slot, nil
}

func checkBlobs(blobs ...[]byte) error {
	for _, b := range blobs {
		if len(b) == 0 || len(b) > maxBlob {
			return fmt.Errorf("a blob of %d bytes; 1 to %d are possible", len(b), maxBlob)
		}
	}
	return nil
}

// cursor reads TPM structures. It keeps its first error.
type cursor struct {
	rest []byte
	err  error
}

func (c *cursor) next(n int) []byte {
	if c.err == nil && n > len(c.rest) {
		c.err = fmt.Errorf("a blob ends %d bytes early", n-len(c.rest))
	}
	if c.err != nil {
		return nil
	}
	part := c.rest[:n:n]
	c.rest = c.rest[n:]
	return part
}

func (c *cursor) u32() uint32 {
	if b := c.next(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// sized reads a TPM2B: 16 bits of size, and as many bytes.
func (c *cursor) sized() []byte {
	if b := c.next(2); b != nil {
		return c.next(int(binary.BigEndian.Uint16(b)))
	}
	return nil
}

// end returns the first error; bytes that are left are one.
func (c *cursor) end() error {
	if c.err == nil && len(c.rest) > 0 {
		c.err = fmt.Errorf("%d bytes too many in a blob", len(c.rest))
	}
	return c.err
}

// one reads a blob that is a single TPM2B.
func one(blob []byte) ([]byte, error) {
	c := cursor{rest: blob}
	b := c.sized()
	return b, c.end()
}

// appendSized writes a TPM2B.
func appendSized(to, content []byte) []byte {
	return append(binary.BigEndian.AppendUint16(to, uint16(len(content))), content...)
}
