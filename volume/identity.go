package volume

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cryptctl/cryptctl/luks"
)

// ErrStranger is wrapped when a volume opens, and is not the one that was meant.
var ErrStranger = errors.New("this is not the volume that was formatted here")

// Identity is what a volume is known by. It holds no secret and gives none away.
type Identity struct {
	UUID  string `json:"uuid"`
	Label string `json:"label,omitempty"`
	Key   string `json:"key"` // hex, a fingerprint under the volume key
	// Filesystem says that the volume had one: it is never made again.
	Filesystem bool `json:"filesystem,omitempty"`
}

func identify(h *luks.Header, key *luks.VolumeKey, filesystem bool) (Identity, error) {
	print, err := derive(key, "cryptctl volume identity v1 "+h.UUID())
	return Identity{UUID: h.UUID(), Label: h.Label(), Key: print, Filesystem: filesystem}, err
}

// derive returns hex text that only the holder of the volume key can make.
func derive(key *luks.VolumeKey, purpose string) (string, error) {
	p, err := hkdf.Key(sha256.New, key.Bytes().Bytes(), nil, purpose, sha256.Size)
	return hex.EncodeToString(p), err
}

// check says how a header with its key differs from what is known. Without a key
// only what needs none is compared.
func (k *Identity) check(h *luks.Header, key *luks.VolumeKey) error {
	switch {
	case k == nil:
		return nil
	case h.UUID() != k.UUID:
		return fmt.Errorf("%w: its UUID is %q, and %q was recorded", ErrStranger, h.UUID(), k.UUID)
	case h.Label() != k.Label:
		return fmt.Errorf("%w: its label is %q, and %q was recorded", ErrStranger, h.Label(), k.Label)
	case key == nil:
		return nil
	}
	now, err := identify(h, key, true)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(now.Key), []byte(k.Key)) != 1 {
		return fmt.Errorf("%w: its UUID is right and its volume key is another", ErrStranger)
	}
	if k.Filesystem && isFresh(h, key) {
		return fmt.Errorf("%w any more: its header was brought back from before its file system was made", ErrStranger)
	}
	return nil
}

// freshMember of the config object says that the volume was formatted and never
// had a file system.
const freshMember = "cryptctl.fresh"

func freshMark(key *luks.VolumeKey, uuid string) (json.RawMessage, error) {
	mark, err := derive(key, "cryptctl fresh volume v1 "+uuid)
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct { // [luks.SetConfig] takes objects
		Mark string `json:"mark"`
	}{mark})
}

func isFresh(h *luks.Header, key *luks.VolumeKey) bool {
	is, there := h.Config(freshMember)
	want, err := freshMark(key, h.UUID())
	return there && err == nil && subtle.ConstantTimeCompare(is, want) == 1
}
