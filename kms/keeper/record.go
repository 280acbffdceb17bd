package keeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/policy"
)

const (
	recordFormat = 1
	// maxKeys bounds the versions that a node keeps at a time.
	maxKeys = 64

	nodePrefix   = "node/"
	importPrefix = "import/"
	// importsPrefix is for names that say which reference blobs a node brought.
	importsPrefix = "imports/"
)

// record is what is stored of a node. It is read strictly: a member that an older
// program does not know may be one that denies.
type record struct {
	Format   int         `json:"format"`
	Policy   policy.Node `json:"policy"`
	Made     time.Time   `json:"made"`
	Approved time.Time   `json:"approved,omitzero"`         // by an operator
	Last     uint32      `json:"last_version,omitempty"`    // of all versions that ever were
	Keys     []nodeKey   `json:"keys,omitempty"`            // oldest first; the last one seals
	Comment  string      `json:"comment,omitempty"`         // an operator's, on the last change
	Below    uint32      `json:"forgotten_below,omitempty"` // versions that were destroyed when the node was forgotten
	Purged   bool        `json:"purged,omitempty"`          // as if it had never been; names are not deleted
}

// nodeKey is one version of a node's key.
type nodeKey struct {
	Version uint32    `json:"version"`
	Wrapped []byte    `json:"wrapped"` // by the KEK, bound to node and version
	Made    time.Time `json:"made"`
}

// imported is what is stored of a reference blob.
type imported struct {
	Format int       `json:"format"`
	Node   blob.Node `json:"node"`
	Blob   []byte    `json:"blob,omitempty"` // its data, sealed for the node; none: destroyed
	Made   time.Time `json:"made"`
}

func parseRecord(text []byte) (*record, error) {
	var r record
	if err := strictly(text, &r); err != nil {
		return nil, err
	}
	if r.Format != recordFormat {
		return nil, fmt.Errorf("format %d, known is %d; it needs a newer program", r.Format, recordFormat)
	}
	if err := r.Policy.Check(); err != nil {
		return nil, err
	}
	if len(r.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys, at most %d", len(r.Keys), maxKeys)
	}
	if len(r.Keys) > 0 && r.Keys[0].Version < r.Below || r.Below > r.Last+1 {
		return nil, fmt.Errorf("a key that was forgotten, below version %d", r.Below)
	}
	if r.Purged && (r.Last > 0 || r.Policy.State != policy.Pending) {
		return nil, errors.New("it is purged, and was more than pending")
	}
	last := uint32(0)
	for _, k := range r.Keys {
		if k.Version <= last || k.Version > r.Last || len(k.Wrapped) == 0 {
			return nil, fmt.Errorf("key version %d is out of order, or empty", k.Version)
		}
		last = k.Version
	}
	return &r, nil
}

func parseImported(text []byte) (*imported, error) {
	var i imported
	if err := strictly(text, &i); err != nil {
		return nil, err
	}
	if i.Format != recordFormat {
		return nil, fmt.Errorf("format %d, known is %d; it needs a newer program", i.Format, recordFormat)
	}
	if n, err := blob.ParseNode(string(i.Node)); err != nil || n != i.Node {
		return nil, errors.New("its node is not a canonical UUID")
	}
	return &i, nil
}

func strictly(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("not a record of this version: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("not a record: more follows its object")
	}
	return nil
}

// encode gives what is stored; a record that could not be read again is not.
func (r *record) encode() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if _, err := parseRecord(text); err != nil {
		return nil, err
	}
	return text, nil
}

func (r *record) clone() *record {
	c := *r
	c.Keys = slices.Clone(r.Keys)
	c.Policy.Networks = slices.Clone(r.Policy.Networks)
	return &c
}

// key returns a version; the newest one for 0.
func (r *record) key(version uint32) (nodeKey, bool) {
	if version == 0 && len(r.Keys) > 0 {
		return r.Keys[len(r.Keys)-1], true
	}
	i := slices.IndexFunc(r.Keys, func(k nodeKey) bool { return k.Version == version })
	if i < 0 {
		return nodeKey{}, false
	}
	return r.Keys[i], true
}

// associated binds a wrapped key to its place: it unwraps for no other node and
// for no other version.
func associated(node blob.Node, version uint32) []byte {
	return []byte("cryptctl kms node key 1|" + string(node) + "|" + strconv.FormatUint(uint64(version), 10))
}
