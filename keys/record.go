package keys

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/secret"
)

// A record says which slots are ours and how they looked when we made them. It
// is stored in the header as a token of its own:
//
//	{"type": "cryptctl", "keyslots": [], "version": 1, "slots": {
//	    "0": {"kind": "static", "slot": MAC},
//	    "1": {"kind": "kms",    "slot": MAC, "secret": MAC}}}
//
//	slot   = MAC over the slot's id, object, encrypted material and token
//	secret = MAC over the same and the passphrase; random passphrases only
//	MAC    = HMAC-SHA-256 under HKDF(volume key, UUID), 16 bytes, base64
//
// The token takes the highest id that no configured key has, so that it never
// stands where Talos looks for a key's token. With all 32 slots configured there
// is no such id (cryptsetup 2.6.1 aborts on token 32), and the record stands in
// the header's config object instead, which tools keep as it is.
const (
	recordType    = "cryptctl"
	recordVersion = 1
	macSize       = 16
)

type record struct {
	Type     string                 `json:"type"`
	Keyslots []string               `json:"keyslots"`
	Version  int                    `json:"version"`
	Slots    map[string]recordEntry `json:"slots"`
}

type recordEntry struct {
	Kind   string `json:"kind"`
	Slot   []byte `json:"slot"`
	Secret []byte `json:"secret,omitempty"`
}

func newRecord() record {
	return record{Type: recordType, Keyslots: []string{}, Version: recordVersion, Slots: map[string]recordEntry{}}
}

// readRecord returns the header's record; an empty one when there is none or it
// cannot be read, since then no slot counts as ours.
func readRecord(h *luks.Header) record {
	raw, ok := h.Config(recordType)
	for _, t := range h.Tokens() {
		if t.Type == recordType {
			raw, ok = t.JSON, true
		}
	}
	r := newRecord()
	if !ok || json.Unmarshal(raw, &r) != nil || r.Version != recordVersion || r.Slots == nil {
		return newRecord()
	}
	return r
}

// Recorded returns the kinds of the slots that the header's record names. It is
// for display: without the volume key nobody can tell whether the record is true.
func Recorded(h *luks.Header) map[int]string {
	kinds := map[int]string{}
	for name, e := range readRecord(h).Slots {
		if id, err := strconv.Atoi(name); err == nil {
			kinds[id] = e.Kind
		}
	}
	return kinds
}

func (r record) entry(slot int) (recordEntry, bool) {
	e, ok := r.Slots[strconv.Itoa(slot)]
	return e, ok
}

// store returns the changes that put the record into a header with these tokens.
// They come before those of the slots, which may want the place of an old record.
func (r record) store(tokens []luks.Token, inConfig bool, want []Key) ([]luks.Change, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var changes []luks.Change
	at := recordID(tokens, want)
	for _, t := range tokens {
		if t.Type == recordType && t.ID != at {
			changes = append(changes, luks.RemoveToken(t.ID))
		}
	}
	if at < 0 {
		return append(changes, luks.SetConfig(recordType, raw)), nil
	}
	if inConfig {
		changes = append(changes, luks.SetConfig(recordType, nil))
	}
	return append(changes, luks.SetToken(at, raw)), nil
}

// recordID returns the token id for the record, or -1 when none is free. A
// record stays where it is while it may.
func recordID(tokens []luks.Token, want []Key) int {
	configured := func(id int) bool { return slices.ContainsFunc(want, func(k Key) bool { return k.Slot == id }) }
	for _, t := range tokens {
		if t.Type == recordType && !configured(t.ID) {
			return t.ID
		}
	}
	for id := luks.MaxSlots - 1; id >= 0; id-- {
		if !configured(id) && !slices.ContainsFunc(tokens, func(t luks.Token) bool { return t.ID == id }) {
			return id
		}
	}
	return -1
}

// fingerprinter makes the MACs of one volume.
type fingerprinter struct {
	key *secret.Bytes
}

// identity is what a token may keep of the volume that it is for.
func (f fingerprinter) identity() string {
	mac := hmac.New(sha256.New, f.key.Bytes())
	mac.Write([]byte("identity of the volume"))
	return hex.EncodeToString(mac.Sum(nil)[:macSize])
}

func newFingerprinter(volume *luks.VolumeKey, uuid string) (fingerprinter, error) {
	key, err := hkdf.Key(sha256.New, volume.Bytes().Bytes(), nil, "cryptctl slot fingerprint v1 "+uuid, sha256.Size)
	if err != nil {
		return fingerprinter{}, fmt.Errorf("derive the fingerprint key: %w", err)
	}
	return fingerprinter{secret.Take(key)}, nil
}

// entry makes a slot's record. token is the slot's token, passphrase nil for
// passphrases that a fingerprint would help to guess.
func (f fingerprinter) entry(kind string, slot int, sum [sha256.Size]byte, token json.RawMessage, passphrase *secret.Bytes) recordEntry {
	e := recordEntry{Kind: kind, Slot: f.mac("slot", slot, kind, sum, token, nil)}
	if passphrase != nil {
		e.Secret = f.mac("secret", slot, kind, sum, token, passphrase)
	}
	return e
}

func (f fingerprinter) mac(use string, slot int, kind string, sum [sha256.Size]byte, token json.RawMessage, passphrase *secret.Bytes) []byte {
	m := hmac.New(sha256.New, f.key.Bytes())
	for _, part := range [][]byte{[]byte(use), []byte(strconv.Itoa(slot)), []byte(kind), sum[:], canonical(token), passphrase.Bytes()} {
		m.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		m.Write(part)
	}
	out := m.Sum(nil)[:macSize]
	m.Write(make([]byte, sha256.BlockSize)) // over the end of the passphrase in its buffer
	return out
}

// canonical gives a token's meaning, whatever tool wrote it down.
func canonical(token json.RawMessage) []byte {
	d := json.NewDecoder(bytes.NewReader(token))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil // no token
	}
	out, err := json.Marshal(v)
	if err != nil {
		panic(err) // it was just decoded
	}
	return out
}

// unchanged reports whether the slot and its token are as recorded. For a slot
// that was recorded without a token it does not matter what another tool put, or
// left behind, at its id.
func (f fingerprinter) unchanged(e recordEntry, slot int, sum [sha256.Size]byte, token json.RawMessage) bool {
	return hmac.Equal(e.Slot, f.mac("slot", slot, e.Kind, sum, token, nil)) ||
		hmac.Equal(e.Slot, f.mac("slot", slot, e.Kind, sum, nil, nil))
}

// opens reports whether the slot is as recorded and the passphrase the one that
// was seen to open it then.
func (f fingerprinter) opens(e recordEntry, slot int, sum [sha256.Size]byte, token json.RawMessage, passphrase *secret.Bytes) bool {
	return len(e.Secret) == macSize && hmac.Equal(e.Secret, f.mac("secret", slot, e.Kind, sum, token, passphrase))
}
