package patch

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
)

// Options are how patches are applied. The zero value has the rules of this
// package.
type Options struct {
	// Talos asks for what Talos 1.13 makes of the patches, with its losses and
	// failures (see the package).
	Talos bool
}

// Apply returns the configuration with the patches applied, each to what the
// ones before it made. The configuration that was given does not change; with an
// error, which is of type [document.Errors], there is no other.
func (o Options) Apply(s *document.Stream, patches ...*Patch) (*document.Stream, error) {
	for _, p := range patches {
		var err error
		if s, err = o.apply(s, p); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (o Options) apply(s *document.Stream, p *Patch) (*document.Stream, error) {
	in := &document.Report{Name: p.name}
	if p.operations != nil {
		return o.operate(s, p, in)
	}
	m := &merger{options: o, types: newTypes(), in: in}
	docs := s.Documents()
	for _, part := range m.parts(p.documents) {
		m.kind = part.id.Kind
		docs = m.document(docs, part)
	}
	if m.broken == nil && !in.Failed() {
		m.conflicts(docs)
	}
	if m.broken != nil || in.Failed() {
		return nil, append(m.broken, in.Sorted()...)
	}
	return s.With(docs...), nil
}

// part is a document of a patch, or the deletions in it.
type part struct {
	id        document.ID
	root      *yaml.Node // nil: nothing but deletions
	deletions []deletion
	line      int
}

// parts takes the documents apart. As in Talos, the deletions in the main
// document come before everything else.
func (m *merger) parts(roots []*yaml.Node) []part {
	var first, out []part
	merged := make(map[document.ID]int)
	for _, r := range roots {
		root, err := document.Copy(r)
		if err != nil {
			m.in.Fail(r.Line, "", err.Error(), "this is no patch")
			continue
		}
		p := part{id: document.IDOf(root), root: root, line: r.Line}
		var gone bool
		if p.deletions, gone = m.deletions(root); gone {
			p.root = nil
		}
		if p.id.Kind == document.Main && p.deletions != nil {
			first = append(first, part{id: p.id, deletions: p.deletions, line: p.line})
			p.deletions = nil
		}
		if line, twice := merged[p.id]; twice && m.options.Talos && p.root != nil {
			m.in.Fail(p.line, "", "document "+p.id.String()+" is there twice, first on line "+strconv.Itoa(line), "make one of them; Talos 1.13 takes no two")
		}
		if p.root != nil {
			merged[p.id] = p.line
		}
		out = append(out, p)
	}
	return append(first, out...)
}

// document applies a part of the patch to the documents.
func (m *merger) document(docs []*document.Document, p part) []*document.Document {
	at := slices.IndexFunc(docs, func(d *document.Document) bool { return d.ID() == p.id })
	if at < 0 {
		// What shall go is not there.
		if p.root == nil {
			return docs
		}
		added, err := document.New(p.root)
		if err != nil {
			m.in.Fail(p.line, "", "document "+p.id.String()+" cannot be added: "+err.Error(), "this is no patch")
			return docs
		}
		return append(slices.Clip(docs), added)
	}
	if slices.ContainsFunc(p.deletions, func(d deletion) bool { return len(d.path) == 0 }) {
		if p.id.Kind == document.Main {
			m.in.Fail(p.line, "", "the main document cannot be deleted", "name what to delete in it")
		}
		return slices.Delete(slices.Clone(docs), at, at+1)
	}
	if changed := m.change(docs[at], p); changed != docs[at] {
		docs = slices.Clone(docs)
		docs[at] = changed
	}
	return docs
}

// change applies a part of the patch to its document. One in which nothing changes,
// and with mistakes, is d itself, which keeps its text.
func (m *merger) change(d *document.Document, p part) *document.Document {
	reached := false
	changed, err := d.Edit(func(root *yaml.Node) error {
		reached = true
		for _, deletion := range p.deletions {
			m.delete(root, deletion)
		}
		if p.root != nil {
			m.fields(root, p.root, m.types.root(m.kind), nil)
			document.Foreign(p.root) // of which parts are in root now
		}
		if len(p.deletions) > 0 {
			m.keepMain(root)
		}
		return m.in.Err() // before the document is written, which costs most
	})
	switch {
	case err != nil && !reached:
		m.broken = append(m.broken, unchangeable(d, d.Line(), err)...)
	case m.in.Failed():
	case err != nil:
		problem, fix, _ := strings.Cut(err.Error(), "; ")
		m.in.Fail(p.line, "", "document "+p.id.String()+" cannot be changed: "+problem, fix)
	case changed.Same(d):
	case changed.ID() != p.id:
		m.in.Fail(p.line, "", "document "+p.id.String()+" would become "+changed.ID().String(), "delete the one, and add the other")
	default:
		return changed
	}
	return d
}

// unchangeable returns that a document of the configuration cannot be changed: it is
// what has to be mended, in its file, not the patch. The error is "problem; fix".
func unchangeable(d *document.Document, line int, err error) document.Errors {
	in := &document.Report{Name: d.File()}
	problem, fix, _ := strings.Cut(err.Error(), "; ")
	in.Fail(line, "", "document "+d.ID().String()+" cannot be changed: "+problem, fix)
	return in.Sorted()
}

// conflicts reports documents that Talos does not let stand next to each other
// (ConflictsWithKinds of its types).
func (m *merger) conflicts(docs []*document.Document) {
	groups := [][]string{
		{"BondConfig", "BridgeConfig", "DummyLinkConfig", "LinkConfig", "VLANConfig", "VRFConfig", "WireguardConfig"},
		{"HCloudVIPConfig", "Layer2VIPConfig"},
		{"ExistingVolumeConfig", "UserVolumeConfig"},
	}
	for i, d := range docs {
		a := d.ID()
		for _, group := range groups {
			if !slices.Contains(group, a.Kind) {
				continue
			}
			for _, e := range docs[:i] {
				if b := e.ID(); b.Name == a.Name && b.Kind != a.Kind && slices.Contains(group, b.Kind) {
					m.in.Fail(0, "", "there would be "+b.String()+" and "+a.String()+", of which there can be one",
						"delete the other one, or choose another name")
				}
			}
		}
	}
}
