package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/meta"
	"github.com/cryptctl/cryptctl/volume"
)

// Tags of our own in META; Talos has 6 to 18.
const (
	tagIdentity   meta.Tag = 192 // JSON of volume.Identity: which volume STATE is
	tagCandidates meta.Tag = 193 // JSON array of values of tag 9: keys that STATE's header may have
	tagWiping     meta.Tag = 194 // JSON array of labels: wipes that have begun
)

// notes are what META says.
type notes struct {
	state      *config.Encryption   // tag 9; nil: plain
	candidates []*config.Encryption // newest first
	identity   *volume.Identity
	wiping     []string
	uuid       string
	damage     []string
}

// sets are all key sets that may open STATE, those in force first.
func (n *notes) sets() (sets []*config.Encryption) {
	for _, set := range append([]*config.Encryption{n.state}, n.candidates...) {
		if set != nil {
			sets = append(sets, set)
		}
	}
	return sets
}

// readNotes reads META. What it holds is not trusted: package meta
// bounds it, and whatever it names meets the checks of those who use it.
func (n *Node) readNotes() (*notes, error) {
	var out *notes
	err := n.withMeta(luks.ReadOnly, func(m *meta.Meta) (err error) {
		out, err = parseNotes(m)
		return err
	})
	if out != nil {
		sets := &config.Config{}
		for _, e := range out.sets() {
			sets.Volumes = append(sets.Volumes, *e)
		}
		n.used = append(n.used, &machine{Config: sets})
	}
	return out, err
}

func parseNotes(m *meta.Meta) (*notes, error) {
	n := &notes{damage: m.Damage()}
	if value, ok := m.Get(meta.StateEncryptionConfig); ok {
		e, err := meta.ParseEncryption(value)
		clear(value)
		if err != nil {
			return nil, fmt.Errorf("META, tag 9: %w", err)
		}
		if n.state = fromMeta(e); n.state != nil && len(n.state.Keys) == 0 {
			return nil, errors.New("META, tag 9: no key of STATE is of a kind that is known here")
		}
	}
	var raw []json.RawMessage
	errs := []error{note(m, tagCandidates, &raw), note(m, tagIdentity, &n.identity), note(m, tagWiping, &n.wiping)}
	for _, value := range raw {
		e, err := meta.ParseEncryption(value)
		if c := fromMeta(e); err == nil && c != nil && len(c.Keys) > 0 {
			n.candidates = append(n.candidates, c)
		}
		clear(value)
		errs = append(errs, err)
	}
	if uuid, ok := m.Get(meta.UUIDOverride); ok {
		n.uuid = string(uuid)
	}
	return n, errors.Join(errs...)
}

func note(m *meta.Meta, tag meta.Tag, into any) error {
	value, ok := m.Get(tag)
	if !ok {
		return nil
	}
	if err := json.Unmarshal(value, into); err != nil {
		return fmt.Errorf("META, tag %d: not the JSON that it should be", tag)
	}
	return nil
}

// withMeta opens META for one use.
func (n *Node) withMeta(mode luks.Mode, use func(*meta.Meta) error) error {
	f, err := luks.OpenFile(n.meta, mode)
	if err != nil {
		return fmt.Errorf("META: %w", err)
	}
	defer f.Close()
	m, err := meta.Read(f)
	if err != nil {
		return fmt.Errorf("META on %s: %w", n.meta, err)
	}
	return use(m)
}

// changeNotes changes META as one step; a change by others in between is taken
// in.
func (n *Node) changeNotes(change func(*editor)) error {
	if err := n.before("META"); err != nil {
		return err
	}
	for {
		err := n.withMeta(luks.ReadWrite, func(m *meta.Meta) error {
			e := &editor{meta: m}
			if change(e); e.err != nil {
				return e.err
			}
			return m.Commit()
		})
		if !errors.Is(err, meta.ErrConflict) {
			return err
		}
	}
}

// editor sets values of META; its first error stays.
type editor struct {
	meta *meta.Meta
	err  error
}

func (e *editor) state(enc *config.Encryption) {
	if enc == nil {
		e.meta.Delete(meta.StateEncryptionConfig)
		return
	}
	value, err := toMeta(enc).Encode()
	e.set(meta.StateEncryptionConfig, value, err)
	clear(value)
}

func (e *editor) candidates(sets []*config.Encryption) {
	if len(sets) == 0 {
		e.meta.Delete(tagCandidates)
		return
	}
	var raw []json.RawMessage
	for _, set := range sets {
		value, err := toMeta(set).Encode()
		e.fail(err)
		raw = append(raw, value)
	}
	e.json(tagCandidates, raw)
	for _, value := range raw {
		clear(value)
	}
}

func (e *editor) identity(id *volume.Identity) {
	if id == nil {
		e.meta.Delete(tagIdentity)
		return
	}
	e.json(tagIdentity, id)
}

func (e *editor) wiping(labels []string) {
	if len(labels) == 0 {
		e.meta.Delete(tagWiping)
		return
	}
	e.json(tagWiping, labels)
}

// without returns the wipes that have begun, but for some.
func (e *editor) without(labels ...string) (wiping []string) {
	e.fail(note(e.meta, tagWiping, &wiping))
	return slices.DeleteFunc(wiping, func(l string) bool { return slices.Contains(labels, l) })
}

func (e *editor) json(tag meta.Tag, v any) {
	value, err := json.Marshal(v)
	e.set(tag, value, err)
	clear(value)
}

func (e *editor) set(tag meta.Tag, value []byte, err error) {
	if e.fail(err); e.err == nil {
		e.fail(e.meta.Set(tag, value))
	}
}

func (e *editor) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

// sameKeys reports whether two key sets are the same in META's form.
func sameKeys(a, b *config.Encryption) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, err := toMeta(a).Encode()
	y, err2 := toMeta(b).Encode()
	defer clear(x)
	defer clear(y)
	return err == nil && err2 == nil && bytes.Equal(x, y)
}

// withSet returns sets with one more in front, each once.
func withSet(sets []*config.Encryption, set *config.Encryption) []*config.Encryption {
	rest := slices.DeleteFunc(slices.Clone(sets), func(s *config.Encryption) bool { return s == nil || sameKeys(s, set) })
	if set == nil {
		return rest
	}
	return append([]*config.Encryption{set}, rest...)
}
