package kms

import (
	"encoding/json"
	"fmt"
)

// TokenType is the type of the tokens, as LUKS2 has it: Talos' own.
const TokenType = "sideroKMS"

// Tokens are the token types that a [Provider] reads, for keys.Key.
func Tokens() []string { return []string{TokenType} }

const (
	// maxToken bounds a token in bytes: the whole JSON area of most headers is
	// smaller.
	maxToken = 64 << 10
	// maxSealed bounds a sealed key in bytes. The reference server's has 60, and
	// a key that a cloud's service wrapped a few hundred.
	maxSealed = 2048
)

// tokenJSON is the token as Talos writes it, to the byte:
//
//	{"UserData":{"sealedData":BASE64},"type":"sideroKMS","keyslots":[]}
//
// It names no keyslot: for Talos its id is the slot's. With the reference server
// it has 143 bytes.
type tokenJSON struct {
	UserData struct {
		Sealed []byte `json:"sealedData"`
	} `json:"UserData"`
	Type     string   `json:"type"`
	Keyslots []string `json:"keyslots"`
}

// encodeToken gives the token that holds a sealed key.
func encodeToken(sealed []byte) json.RawMessage {
	t := tokenJSON{Type: TokenType, Keyslots: []string{}}
	t.UserData.Sealed = sealed
	raw, _ := json.Marshal(t) // strings and bytes cannot fail
	return raw
}

// readToken returns the sealed key of a token. Members that it does not know are
// ignored.
func readToken(raw json.RawMessage) ([]byte, error) {
	if len(raw) > maxToken {
		return nil, fmt.Errorf("the token has %d bytes, more than %d", len(raw), maxToken)
	}
	// The type first: another one may have any other members.
	var t struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, fmt.Errorf("the token: %w", err)
	}
	if t.Type != TokenType {
		return nil, fmt.Errorf("the token's type is %q, must be %s", t.Type, TokenType)
	}
	var data struct {
		UserData struct {
			Sealed []byte `json:"sealedData"`
		} `json:"UserData"`
	}
	if err := json.Unmarshal(raw, &data); err != nil {
		return nil, fmt.Errorf("the token: %w", err)
	}
	if n := len(data.UserData.Sealed); n == 0 || n > maxSealed {
		return nil, fmt.Errorf("the token's sealedData has %d bytes; 1 to %d are possible", n, maxSealed)
	}
	return data.UserData.Sealed, nil
}
