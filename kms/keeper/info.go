package keeper

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"strings"
	"time"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
)

// Info is what an operator may see of a node.
type Info struct {
	Node     blob.Node
	Policy   policy.Node
	Made     time.Time // when it was first heard of
	Approved time.Time // by an operator; zero if it never was
	Keys     []KeyInfo // oldest first; the last one seals
	Comment  string    // the reason of the last change
	Seen     Seen      // by this server, since it was started
}

// Seen is when a node was here last. It is kept in memory only: a write for each
// answer would be the most expensive part of it.
type Seen struct {
	At, Unsealed time.Time // zero: not since the start
	Source       netip.Addr
}

// KeyInfo is one version of a node's key.
type KeyInfo struct {
	Version uint32
	Made    time.Time
	KEK     string // the version of the key-encryption key that wrapped it
}

func (k *Keeper) info(id blob.Node, r *record) Info {
	out := Info{Node: id, Policy: r.Policy, Made: r.Made, Approved: r.Approved, Comment: r.Comment, Seen: k.cache.lastSeen(id)}
	for _, key := range r.Keys {
		out.Keys = append(out.Keys, KeyInfo{key.Version, key.Made, kek.Version(key.Wrapped)})
	}
	return out
}

// Info returns what is known of a node.
func (k *Keeper) Info(ctx context.Context, node string) (Info, error) {
	id, err := blob.ParseNode(node)
	if err != nil {
		return Info{}, malformed("", err)
	}
	n, err := k.node(ctx, id, 0)
	if err != nil {
		return Info{}, err
	}
	if !n.there() {
		return Info{}, fmt.Errorf("node %s: %w", id, ErrUnknown)
	}
	return k.info(id, n.rec), nil
}

// Nodes lists all nodes. One whose record cannot be read comes with an error, and
// the list goes on.
func (k *Keeper) Nodes(ctx context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for item, err := range k.o.Store.List(ctx, nodePrefix) {
			if err != nil {
				yield(Info{}, unavailable("", NoStore, err))
				return
			}
			id := blob.Node(strings.TrimPrefix(item.Name, nodePrefix))
			rec, err := parseRecord(item.Value)
			info := Info{Node: id}
			if err == nil && rec.Purged {
				continue
			}
			if err == nil {
				info = k.info(id, rec)
			} else {
				err = fmt.Errorf("record of node %s: %w", id, err)
			}
			if !yield(info, err) {
				return
			}
		}
	}
}
