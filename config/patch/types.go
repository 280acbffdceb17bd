package patch

import (
	_ "embed"
	"strings"
)

// table has the fields of the documents of Talos 1.13.0. The package only ever
// reads it.
//
//go:embed talos.txt
var table string

// class is how values of a type merge.
type class int

const (
	unknown   class = iota // not in the table
	text                   // and all that is written as text and merges like it
	number                 // whole numbers, durations, file modes
	truth                  // true or false
	anything               // free YAML, such as the configuration of an admission plugin
	word                   // of a fixed set; one of them is the empty one
	address                // a URL
	size                   // bytes or a percentage
	fixed                  // what Talos' merge cannot merge
	list                   // of elem
	mapping                // of names that are free, to elem
	arguments              // a mapping whose values are replaced
	argument               // one of them
	structure              // a mapping of known fields
)

// shape is the type of a field.
type shape struct {
	class   class
	pointer bool   // Talos tells absent from empty
	forced  bool   // Talos takes it from the patch even when it is not there
	replace bool   // replaced as a whole
	empty   string // of a word: the one that is no value
	elem    *shape
	name    string // of a structure
}

// types are the parsed table.
type types struct {
	documents map[string]string           // names of structures by kind
	fields    map[string]map[string]shape // by the name of the structure
	order     map[string][]string         // names of fields, as Talos merges them
}

func newTypes() *types {
	t := &types{
		documents: make(map[string]string),
		fields:    make(map[string]map[string]shape),
		order:     make(map[string][]string),
	}
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		switch {
		case len(words) == 3 && words[0] == "document":
			t.documents[words[1]] = words[2]
		case len(words) > 1 && words[0] == "type":
			fields := make(map[string]shape)
			for _, w := range words[2:] {
				name, typ, _ := strings.Cut(w, ":")
				fields[name] = parseShape(typ)
				t.order[words[1]] = append(t.order[words[1]], name)
			}
			t.fields[words[1]] = fields
		}
	}
	return t
}

// parseShape parses a type of the table, whose head explains them.
func parseShape(s string) shape {
	var out shape
	for ; ; s = s[1:] {
		switch s[0] {
		case '*':
			out.pointer = true
			continue
		case '!':
			out.forced = true
			continue
		case '=':
			out.replace = true
			continue
		}
		break
	}
	if rest, ok := strings.CutPrefix(s, "[]"); ok {
		elem := parseShape(rest)
		out.class, out.elem = list, &elem
		return out
	}
	if rest, ok := strings.CutPrefix(s, "{}"); ok {
		elem := parseShape(rest)
		out.class, out.elem = mapping, &elem
		return out
	}
	if rest, ok := strings.CutPrefix(s, "word("); ok {
		out.class, out.empty = word, strings.TrimSuffix(rest, ")")
		return out
	}
	classes := map[string]class{
		"text": text, "bytes": text, "number": number, "bool": truth, "any": anything,
		"url": address, "size": size, "fixed": fixed, "args": arguments,
	}
	if out.class = classes[s]; out.class == unknown {
		out.class, out.name = structure, s
	}
	return out
}

// root returns the type of a document of this kind.
func (t *types) root(kind string) shape {
	if name, ok := t.documents[kind]; ok {
		return shape{class: structure, name: name}
	}
	return shape{}
}

// field returns the type of a field of what has the type s.
func (t *types) field(s shape, name string) shape {
	switch s.class {
	case structure:
		return t.fields[s.name][name]
	case mapping:
		return *s.elem
	case arguments:
		return shape{class: argument}
	case anything:
		return shape{class: anything}
	}
	return shape{}
}
