package keeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store"
)

// Survey is what a store, or a backup of one, has, seen without a server: fill it
// with [Survey.Take].
type Survey struct {
	Records int
	Nodes   map[policy.State]int
	Keys    int    // of all nodes
	Current string // the version of the key-encryption key that servers wrap by; "" if none is named

	versions map[string]*Opening
	kek      kek.Wrapper // nil: none was tried
}

// Opening is what became of the keys that one version of the key-encryption key
// wraps.
type Opening struct {
	Version string // "" for what no known key-encryption key wrapped
	Keys    int
	Tried   int // of a KEK elsewhere only the first one
	Opened  int
	Lost    []blob.Node // whose keys did not open
	Err     error       // why, of the first
}

// NewSurvey returns an empty survey. With a key-encryption key it tries which keys
// that one opens; nil tries none.
func NewSurvey(w kek.Wrapper) *Survey {
	return &Survey{Nodes: map[policy.State]int{}, versions: map[string]*Opening{}, kek: w}
}

// Take looks at one record. A record that cannot be read is an error.
func (s *Survey) Take(ctx context.Context, item store.Item) error {
	s.Records++
	var r kekRecord
	switch name, isNode := strings.CutPrefix(item.Name, nodePrefix); {
	case item.Name == kekName:
		if err := strictly(item.Value, &r); err != nil {
			return fmt.Errorf("record of the key-encryption key: %w", err)
		}
		s.Current = r.Current
	case isNode:
		rec, err := parseRecord(item.Value)
		if err != nil {
			return fmt.Errorf("record of node %s: %w", name, err)
		}
		if rec.Purged {
			return nil
		}
		s.Nodes[rec.Policy.State]++
		for _, key := range rec.Keys {
			s.Keys++
			if err := s.try(ctx, blob.Node(name), key); err != nil {
				return err
			}
		}
	}
	return nil
}

// try finds out whether one key opens.
func (s *Survey) try(ctx context.Context, node blob.Node, key nodeKey) error {
	version := kek.Version(key.Wrapped)
	o := s.versions[version]
	if o == nil {
		o = &Opening{Version: version}
		s.versions[version] = o
	}
	o.Keys++
	if _, here := s.kek.(versioned); s.kek == nil || !here && o.Tried > 0 {
		return nil
	}
	o.Tried++
	plain, err := s.kek.Unwrap(ctx, key.Wrapped, associated(node, key.Version))
	if err == nil && plain.Len() != blob.KeySize {
		err = errors.New("it is not a node key")
	}
	plain.Wipe()
	if err == nil {
		o.Opened++
		return nil
	}
	if o.Err == nil {
		o.Err = err
	}
	if !slices.Contains(o.Lost, node) {
		o.Lost = append(o.Lost, node)
	}
	return ctx.Err()
}

// Openings are the versions that wrap keys, by name.
func (s *Survey) Openings() []Opening {
	var all []Opening
	for _, name := range slices.Sorted(maps.Keys(s.versions)) {
		all = append(all, *s.versions[name])
	}
	return all
}

// Lost are the nodes of which a key did not open, each once.
func (s *Survey) Lost() []blob.Node {
	var all []blob.Node
	for _, o := range s.versions {
		all = append(all, o.Lost...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
