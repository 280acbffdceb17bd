package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Event is what a record says. Empty members are left out. Strings longer than
// 256 bytes are cut: some come from the network. Before and After are made here, and
// may have 4096; what JSON would escape in them becomes "?".
type Event struct {
	Time       time.Time `json:"time"`
	Op         string    `json:"op"`                    // "seal", "unseal", "revoke", ...
	Node       string    `json:"node,omitempty"`        // UUID, canonical; empty if the request had none
	Address    string    `json:"address,omitempty"`     // network address, without the port
	Actor      string    `json:"actor,omitempty"`       // who is proven to ask: a certificate's name, an operator
	Role       string    `json:"role,omitempty"`        // of the actor
	Serial     string    `json:"serial,omitempty"`      // number of the actor's certificate, in hex
	Outcome    string    `json:"outcome,omitempty"`     // "allowed", "denied", "begun", "done", ...
	Code       string    `json:"code,omitempty"`        // why, in a word
	Rule       string    `json:"rule,omitempty"`        // which rule decided
	KeyVersion uint32    `json:"key_version,omitempty"` // of the node's key
	Before     string    `json:"before,omitempty"`      // what a change replaced: "state=pending"
	After      string    `json:"after,omitempty"`       // what it made; of one that is begun, what was asked for
	Reason     string    `json:"reason,omitempty"`      // why, as the operator said
	Detail     string    `json:"detail,omitempty"`      // for people
}

// Change is Before and After for people; "" for a record of no change.
func (e Event) Change() string {
	switch {
	case e.Before == "":
		return e.After
	case e.After == "":
		return e.Before + " -> nothing"
	}
	return e.Before + " -> " + e.After
}

// Head is a record's place in the chain: its number, from 1, and its hash. The
// zero Head is the one before the first record.
type Head struct {
	Seq  uint64
	Hash [sha256.Size]byte
}

// String gives a head as [ParseHead] reads it: "12:" and the hash in hex.
func (h Head) String() string {
	return strconv.FormatUint(h.Seq, 10) + ":" + hex.EncodeToString(h.Hash[:])
}

// ParseHead reads what String gave.
func ParseHead(s string) (Head, error) {
	number, hash, ok := strings.Cut(s, ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || len(hash) != 2*sha256.Size {
		return Head{}, errors.New("audit head: want a number, a colon and 64 hex digits")
	}
	h := Head{Seq: seq}
	if _, err := hex.Decode(h.Hash[:], []byte(hash)); err != nil || h.String() != s {
		return Head{}, errors.New("audit head: want a number, a colon and 64 hex digits, lower case, no leading zeros")
	}
	return h, nil
}

// MaxLine bounds a record, so that a reader needs no more memory than that.
const MaxLine = 32 << 10

const (
	maxString = 256
	maxChange = 4096
	hashName  = `,"hash":"`
	tailSize  = len(hashName) + 2*sha256.Size + len("\"}\n")
)

// encode returns the members of an event, without the braces, as encoding/json
// would: it runs for each answer, and is written out for that.
func encode(e Event) []byte {
	buf := make([]byte, 0, 384)
	buf = append(buf, `"time":"`...)
	buf = e.Time.UTC().AppendFormat(buf, time.RFC3339Nano)
	buf = append(buf, '"')
	buf = appendMember(buf, `,"op":`, e.Op, true)
	buf = appendMember(buf, `,"node":`, e.Node, false)
	buf = appendMember(buf, `,"address":`, e.Address, false)
	buf = appendMember(buf, `,"actor":`, e.Actor, false)
	buf = appendMember(buf, `,"role":`, e.Role, false)
	buf = appendMember(buf, `,"serial":`, e.Serial, false)
	buf = appendMember(buf, `,"outcome":`, e.Outcome, false)
	buf = appendMember(buf, `,"code":`, e.Code, false)
	buf = appendMember(buf, `,"rule":`, e.Rule, false)
	if e.KeyVersion > 0 {
		buf = append(buf, `,"key_version":`...)
		buf = strconv.AppendUint(buf, uint64(e.KeyVersion), 10)
	}
	buf = appendClipped(buf, `,"before":`, clipChange(e.Before), false)
	buf = appendClipped(buf, `,"after":`, clipChange(e.After), false)
	buf = appendMember(buf, `,"reason":`, e.Reason, false)
	return appendMember(buf, `,"detail":`, e.Detail, false)
}

// appendMember appends a string, unless it is empty and may be left out.
func appendMember(buf []byte, name, s string, always bool) []byte {
	return appendClipped(buf, name, clip(s), always)
}

func appendClipped(buf []byte, name, s string, always bool) []byte {
	if s == "" && !always {
		return buf
	}
	buf = append(buf, name...)
	for i := range len(s) {
		if escaped(s[i]) {
			text, err := json.Marshal(s)
			if err != nil {
				panic(err) // of a string: never
			}
			return append(buf, text...)
		}
	}
	buf = append(buf, '"')
	buf = append(buf, s...)
	return append(buf, '"')
}

// escaped reports whether encoding/json escapes a byte, or may.
func escaped(c byte) bool {
	return c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&'
}

func clip(s string) string {
	if len(s) <= maxString {
		return s
	}
	n := maxString
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// clipChange keeps a change within the line, whatever is in it.
func clipChange(s string) string {
	if len(s) > maxChange {
		s = s[:maxChange-3] + "..."
	}
	for i := range len(s) {
		if escaped(s[i]) {
			return string(printable([]byte(s)))
		}
	}
	return s
}

func printable(s []byte) []byte {
	for i, c := range s {
		if escaped(c) {
			s[i] = '?'
		}
	}
	return s
}

// link appends the record with the given members to buf and returns its head.
func link(buf []byte, prev Head, members []byte) ([]byte, Head) {
	start := len(buf)
	buf = append(buf, `{"seq":`...)
	buf = strconv.AppendUint(buf, prev.Seq+1, 10)
	buf = append(buf, `,"prev":"`...)
	buf = hex.AppendEncode(buf, prev.Hash[:])
	buf = append(buf, `",`...)
	buf = append(buf, members...)
	h := Head{Seq: prev.Seq + 1, Hash: sha256.Sum256(buf[start:])}
	buf = append(buf, hashName...)
	buf = hex.AppendEncode(buf, h.Hash[:])
	return append(buf, "\"}\n"...), h
}

// parsed is a line whose own hash is right.
type parsed struct {
	head Head
	prev [sha256.Size]byte
}

var (
	errNotRecord = errors.New("not a record")
	errHash      = errors.New("its hash is not that of its content")
)

// parse reads a line with its line end.
func parse(line []byte) (parsed, error) {
	n := len(line) - tailSize
	if n < 0 || !json.Valid(line) || string(line[n:n+len(hashName)]) != hashName {
		return parsed{}, errNotRecord
	}
	var p parsed
	digest := line[n+len(hashName) : len(line)-3] // which is in no hash: it has one form
	if _, err := hex.Decode(p.head.Hash[:], digest); err != nil || hex.EncodeToString(p.head.Hash[:]) != string(digest) {
		return parsed{}, errNotRecord
	}
	rest, ok := bytes.CutPrefix(line[:n], []byte(`{"seq":`))
	digits, rest, ok2 := bytes.Cut(rest, []byte(`,"prev":"`))
	if !ok || !ok2 || len(rest) < 2*sha256.Size {
		return parsed{}, errNotRecord
	}
	seq, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil || seq == 0 {
		return parsed{}, errNotRecord
	}
	if _, err := hex.Decode(p.prev[:], rest[:2*sha256.Size]); err != nil {
		return parsed{}, errNotRecord
	}
	p.head.Seq = seq
	if sha256.Sum256(line[:n]) != p.head.Hash {
		return p, errHash
	}
	return p, nil
}
