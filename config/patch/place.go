package patch

import (
	"slices"
	"strconv"

	"github.com/cryptctl/cryptctl/config/document"
)

// place is a path in a document. A field can have any name, such as
// [fd00::1]:5000, so that its steps say what they are.
type place []step

// step is the name of a field, or the number of a list entry.
type step struct {
	name  string // of an entry: [0]
	entry bool
}

// field returns the place of a field.
func (p place) field(name string) place {
	return append(slices.Clip(p), step{name: name})
}

// entry returns the place of a list entry.
func (p place) entry(number int) place {
	return append(slices.Clip(p), step{name: "[" + strconv.Itoa(number) + "]", entry: true})
}

// names returns the steps as package document has them.
func (p place) names() []string {
	var out []string
	for _, s := range p {
		out = append(out, s.name)
	}
	return out
}

// fields returns the names of the fields alone.
func (p place) fields() []string {
	return slices.DeleteFunc(slices.Clone(p), func(s step) bool { return s.entry }).names()
}

// String returns the path as a message shows it.
func (p place) String() string { return document.ShownPath(p.names()) }
