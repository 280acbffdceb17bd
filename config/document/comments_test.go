package document_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
	"pgregory.net/rapid"

	"github.com/cryptctl/cryptctl/config/document"
)

// at returns a change of what is at a path: names of fields, numbers of list
// entries. The change gets the collection and the place in its content, behind
// the end for a field that is not there.
func at(path string, change func(n *yaml.Node, i int)) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		steps := strings.Split(path, " ")
		for i, step := range steps {
			var place int
			if n.Kind == yaml.SequenceNode {
				fmt.Sscan(step, &place)
			} else if place = document.Index(n, step) + 1; place == 0 {
				place = len(n.Content) + 1
			}
			if i == len(steps)-1 {
				change(n, place)
				return nil
			}
			n = n.Content[place]
		}
		return nil
	}
}

// to sets a field, or adds it with the last name of the path.
func to(path, value string) func(*yaml.Node) error {
	text := func(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }
	return at(path, func(n *yaml.Node, i int) {
		if n.Style &^= yaml.FlowStyle; i < len(n.Content) {
			n.Content[i] = text(value)
			return
		}
		if n.Kind == yaml.MappingNode {
			n.Content = append(n.Content, text(path[strings.LastIndex(path, " ")+1:]))
		}
		n.Content = append(n.Content, text(value))
	})
}

// without deletes a field or a list entry.
func without(path string) func(*yaml.Node) error {
	return at(path, func(n *yaml.Node, i int) {
		if n.Kind == yaml.MappingNode {
			n.Content = slices.Delete(n.Content, i-1, i+1)
			return
		}
		n.Content = slices.Delete(n.Content, i, i+1)
	})
}

// generated has options as a generator of configurations writes them: commented
// out, in the column where they would be.
const generated = `# head
machine:
    type: worker # its role
    # how the node reaches others
    network:
        dns: [a, b] # two

        # # a name for the node
        # hostname: n1
    labels:
        rack: "7" # of ten

        # # the room
        # room: "2"

    # # files of the node
    # files:
    #     - path: /x

    # # modules of the kernel
    # kernel: {}
# what all nodes have in common
cluster:
    id: x
    service: {}
    # # where the service is
    # endpoint: y
    text: |
      # not a comment

      text
    list:
    - one # first
    # - two
    - three
    #- four

    # about proxy
    proxy:
        image: p

        # # none at all
        # disabled: true
`

// TestCommentsStay: comments are where they were, whatever else changes.
func TestCommentsStay(t *testing.T) {
	for _, tt := range []struct {
		name     string
		change   func(*yaml.Node) error
		old, new string
	}{
		{"set", to("machine type", "controlplane"), "type: worker #", "type: controlplane #"},
		{"set in quotes", to("machine labels rack", "b"), `rack: "7" #`, `rack: b #`},
		{"set a list", to("machine network dns", "c"), "dns: [a, b] #", "dns: c #"},
		{"set a text", to("cluster text", "b"), "text: |\n      # not a comment\n\n      text\n", "text: b\n"},
		{"add", to("machine labels row", "b"), "        # room: \"2\"\n", "        # room: \"2\"\n        row: b\n"},
		{"add above", to("machine debug", "b"), "    # kernel: {}\n", "    # kernel: {}\n    debug: b\n"},
		{"add to a field above", to("machine network mtu", "b"), "        # hostname: n1\n", "        # hostname: n1\n        mtu: b\n"},
		{"add to an empty mapping", to("cluster service a", "b"), "service: {}\n", "service:\n        a: b\n"},
		{"add at the end", to("cluster proxy x", "b"), "        # disabled: true\n", "        # disabled: true\n        x: b\n"},
		{"add to a list", to("cluster list 9", "five"), "    - three\n", "    - three\n    - five\n"},
		{"add to the root", to("debug", "b"), "        # disabled: true\n", "        # disabled: true\ndebug: b\n"},
		{"delete", without("machine type"), "    type: worker # its role\n", ""},
		{"delete with what is below", without("machine labels"), "    labels:\n        rack: \"7\" # of ten\n\n        # # the room\n        # room: \"2\"\n", ""},
		{"delete with what is above", without("machine network"), "    # how the node reaches others\n    network:\n        dns: [a, b] # two\n\n        # # a name for the node\n        # hostname: n1\n", ""},
		{"delete all", without("machine labels rack"), "    labels:\n        rack: \"7\" # of ten\n", "    labels: {}\n"},
		{"delete from a list", without("cluster list 1"), "    # - two\n    - three\n", ""},
		{"delete the last", without("cluster proxy"), "\n    # about proxy\n    proxy:\n        image: p\n\n        # # none at all\n        # disabled: true\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changes(t, generated, tt.change, strings.Replace(generated, tt.old, tt.new, 1))
			dos := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
			changes(t, dos(generated), tt.change, dos(strings.Replace(generated, tt.old, tt.new, 1)))
		})
	}
}

// changes asserts what a change makes of a document.
func changes(t *testing.T, text string, change func(*yaml.Node) error, want string) {
	t.Helper()
	s := read(t, text)
	d := edit(t, s.Documents()[0], change)
	if diff := cmp.Diff(strings.SplitAfter(want, "\n"), strings.SplitAfter(string(s.With(d).Bytes()), "\n")); diff != "" {
		t.Errorf("%q (-want +got):\n%s", text, diff)
	}
}

// TestLines has the documents that cannot be changed by whole lines.
func TestLines(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		change     func(*yaml.Node) error
		want       string
	}{
		{"first of an entry", "l:\n  - a: 1\n    # b\n    b: 2\n", without("l 0 a"), "l:\n  - # b\n    b: 2\n"},
		{"first of an entry, a blank line", "l:\n  - a: 1\n\n    b: 2\n", without("l 0 a"), "l:\n  - b: 2\n"},
		{"first of an entry, a comment to the left", "l:\n  - a: 1\n # c\n    b: 2\n", without("l 0 a"), "l:\n  -\n # c\n    b: 2\n"},
		{"all of an entry", "l:\n  - a: 1 # a\n    # x\n\n    # b\n    b: 2\n", func(n *yaml.Node) error { return errors.Join(without("l 0 b")(n), without("l 0 a")(n)) }, "l:\n  - {}\n    # x\n"},
		{"first of lists", "l:\n- - a # a\n  # b\n  - b\n", without("l 0 0"), "l:\n- # b\n  - b\n"},
		{"a list in a list", "l:\n- - a # a\n- b\n", without("l 0"), "l:\n- b\n"},
		{"set in lists", "l:\n- - - a # a\n  - b\n", to("l 0 0 0", "c"), "l:\n- - - c # a\n  - b\n"},
		{"set in an entry", "l:\n-   a:   1 # a\n    b: 2\n", to("l 0 a", "c"), "l:\n-   a: c # a\n    b: 2\n"},
		{"a value on its own line", "a: # one\n  # two\n  b # three\nc: d\n", to("a", "e"), "a: e # one\n  # three\n  # two\nc: d\n"},
		{"a name in quotes", "'a # b': # c\n  x: y\n", func(n *yaml.Node) error { n.Content[1].Content = nil; return nil }, "'a # b': {} # c\n"},
		{"comments in flow", "a: [b, # one\n  # two\n  'c # d', \"\\\" # e\"] # three\n", to("a", "e"), "a: e # one\n  # three\n  # two\n"},
		{"a text in quotes", "a: \"x\n  # y\n  z\" # c\nb: d\n", to("b", "e"), "a: \"x\n  # y\n  z\" # c\nb: e\n"},
		{"set a text in quotes", "a: \"x\n  # y\n  z\" # c\nb: d\n", to("a", "e"), "a: e # c\nb: d\n"},
		{"a long text", "a: >-\n  one\n  two\n\n  # three\n# c\nb: d   # e\n", to("x", "z"), "a: >-\n  one\n  two\n\n  # three\n# c\nb: d   # e\nx: z\n"},
		{"a text that keeps its end", "a:\n  b: |+\n    x\n\n\n# c\nd: e\n", to("a c", "f"), "a:\n  b: |+\n    x\n\n\n  c: f\n# c\nd: e\n"},
		{"a text with an indentation", "a:\n  b: |1\n    # x\n   # y\n  # c\n", to("a c", "f"), "a:\n  b: |1\n    # x\n   # y\n  # c\n  c: f\n"},
		{"an empty text", "a: |\n# c\nb: d\n", to("a", "f"), "a: f\n# c\nb: d\n"},
		{"a comment at a text", "a: | # c\n  b\n", to("a", "f"), "a: f # c\n"},
		{"no end of a line", "a: b # c", to("d", "e"), "a: b # c\nd: e\n"},
		{"no end of a text", "a: |\n  b", to("d", "e"), "a: |-\n  b\nd: e\n"},
		{"blank lines around", "a: b\n\n# c\nc: d\n\ne: f\n", without("c"), "a: b\n\ne: f\n"},
		{"blank lines in front", "a: b\n\nc: d\n", without("c"), "a: b\n"},
		{"more than an end", "--- # one\na: b\n... # two\n# three\n", to("d", "e"), "--- # one\na: b\nd: e\n... # two\n# three\n"},
		{"what is behind", "a: b\n# here\n\n# behind\n", to("d", "e"), "a: b\n# here\nd: e\n\n# behind\n"},
		{"a name of no name", "? [a]\n: b\n? c\n: d # e\n", to("f", "g"), "? [a]\n: b\nc: d # e\nf: g\n"},
		{"nulls", "a:\n  # c\nl:\n-\n- # d\n- b\n", to("l 2", "e"), "a:\n  # c\nl:\n-\n- # d\n- e\n"},
		{"a null", "a: # c\n  # d\nb: c\n", to("a", "e"), "a: e # c\n  # d\nb: c\n"},
		{"anchors", "l: &l # labels\n  # b\n  b: c\nm: *l # same\nn: &n d # n\no: *n   # o\n", to("l b", "e"), "l: # labels\n  # b\n  b: e\nm: # same\n  b: c\nn: d # n\no: d   # o\n"},
		{"an anchor at an entry", "l:\n- &a # a\n  b: c # b\n- *a # c\n", to("l 0 b", "e"), "l:\n- # a\n  b: e # b\n- b: c # c\n"},
		{"a merge key", "l: &l # l\n  b: c # b\nm: # m\n  # n\n  x: y\n  # o\n  <<: *l # p\n", to("m x", "e"), "l: # l\n  b: c # b\nm: # m\n  # n\n  x: e\n  b: c\n"},
	} {
		t.Run(tt.name, func(t *testing.T) { changes(t, tt.text, tt.change, tt.want) })
	}
}

// TestNewComments: what is added has its own comments, in its column.
func TestNewComments(t *testing.T) {
	added := read(t, "# one\nx: # two\n  # three\n  y: z # four\n").Documents()[0].Root()
	document.Foreign(added)
	changes(t, "a:\n    b: c\n\n    # d\ne: f\n", at("a b", func(n *yaml.Node, _ int) { n.Content = append(n.Content, added.Content...) }),
		"a:\n    b: c\n\n    # d\n    # one\n    x: # two\n        # three\n        y: z # four\ne: f\n")
	value := read(t, "x: y # new\n").Documents()[0].Root().Content[1]
	value.LineComment = "# new"
	document.Foreign(value)
	changes(t, "a: b # old\n", at("a", func(n *yaml.Node, i int) { n.Content[i] = value }), "a: y # new\n")
}

// TestListComments: the entries of a list are known again.
func TestListComments(t *testing.T) {
	const text = "l:\n  # a\n  - a\n  - b # b\n  # c\n  - {c: d} # d\n"
	list := func(change func(l []*yaml.Node) []*yaml.Node) func(*yaml.Node) error {
		return at("l", func(n *yaml.Node, i int) { n.Content[i].Content = change(n.Content[i].Content) })
	}
	scalar := func(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }
	for _, tt := range []struct {
		name   string
		change func(l []*yaml.Node) []*yaml.Node
		want   string
	}{
		{"in front", func(l []*yaml.Node) []*yaml.Node { return slices.Insert(l, 0, scalar("x")) }, "l:\n  - x\n  # a\n  - a\n  - b # b\n  # c\n  - {c: d} # d\n"},
		{"between", func(l []*yaml.Node) []*yaml.Node { return slices.Insert(l, 2, scalar("x")) }, "l:\n  # a\n  - a\n  - b # b\n  - x\n  # c\n  - {c: d} # d\n"},
		{"replaced", func(l []*yaml.Node) []*yaml.Node { return []*yaml.Node{l[0], scalar("x"), l[2]} }, "l:\n  # a\n  - a\n  - x # b\n  # c\n  - {c: d} # d\n"},
		{"all new", func([]*yaml.Node) []*yaml.Node { return []*yaml.Node{scalar("a"), scalar("x")} }, "l:\n  # a\n  - a\n  - x\n"},
		{"nothing like it", func([]*yaml.Node) []*yaml.Node { return []*yaml.Node{scalar("x")} }, "l:\n  - x\n"},
	} {
		t.Run(tt.name, func(t *testing.T) { changes(t, text, list(tt.change), tt.want) })
	}
	for _, tt := range []struct{ name, now, want string }{
		{"the first is gone", "b x", "b # 2, x"},
		{"the first two are gone", "c x y z", "c # 3, x, y, z"},
		{"one is in front", "x a b c d", "x, a # 1, b # 2, c # 3, d # 4"},
		{"others between", "a x y d", "a # 1, x # 2, y # 3, d # 4"},
		{"fewer between", "a x d", "a # 1, x, d # 4"},
		{"others on both sides", "x c y", "x, c # 3, y # 4"},
		{"the last moved to the front", "d a b c", "d, a # 1, b # 2, c # 3"},
		{"twice", "b a b x", "b, a # 1, b # 2, x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lines := func(entries string) string { return "l:\n  - " + strings.ReplaceAll(entries, ", ", "\n  - ") + "\n" }
			changes(t, lines("a # 1, b # 2, c # 3, d # 4"), list(func([]*yaml.Node) (now []*yaml.Node) {
				for _, e := range strings.Fields(tt.now) {
					now = append(now, scalar(e))
				}
				return now
			}), lines(tt.want))
		})
	}
}

// TestAlign: entries stay in order, equal ones only, and the most there can be
// where none is there twice. Long lists are no slower by the entry.
func TestAlign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.Uint64Range(0, 9), 0, 12)
		if rapid.Bool().Draw(t, "once") {
			list = rapid.SliceOfNDistinct(rapid.Uint64Range(0, 9), 0, 10, rapid.ID)
		}
		now, read := list.Draw(t, "now"), list.Draw(t, "read")
		from, last, found := document.Align(now, read), -1, 0
		for i, k := range from {
			if k < 0 {
				continue
			}
			if k <= last || now[i] != read[k] {
				t.Fatalf("%v of %v is matched as %v", now, read, from)
			}
			last, found = k, found+1
		}
		most := make([][]int, len(now)+1) // the longest common row of their starts
		most[0] = make([]int, len(read)+1)
		for i, n := range now {
			most[i+1] = make([]int, len(read)+1)
			for k, r := range read {
				if most[i+1][k+1] = max(most[i][k+1], most[i+1][k]); n == r {
					most[i+1][k+1] = most[i][k] + 1
				}
			}
		}
		distinct := func(l []uint64) bool { return len(slices.Compact(slices.Sorted(slices.Values(l)))) == len(l) }
		if want := most[len(now)][len(read)]; distinct(now) && distinct(read) && found != want || want > 0 && found == 0 {
			t.Fatalf("%v of %v is matched as %v, want %d", now, read, from, want)
		}
	})
	now, read := make([]uint64, 100_000), make([]uint64, 100_000)
	for i := range now {
		now[i], read[i] = uint64(i/3), uint64((len(now)-i)/2)
	}
	start := time.Now()
	document.Align(now, read)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestKeptText: what is deleted behind a text that keeps its blank lines leaves it
// as it was, and the rest of the document too.
func TestKeptText(t *testing.T) {
	const text = "# head\na:   1 # a\nb: |+\n  text\n\n# c\nc: d\n\n# e\ne:   f # e\n\n"
	changes(t, text, without("c"), strings.Replace(text, "# c\nc: d\n\n", "", 1))
	changes(t, text, without("e"), strings.Replace(text, "\n# e\ne:   f # e\n\n", "", 1))
	const list = "l:\n  - - |+\n      text\n    - a # a\n\n  # b\n  -   b\n"
	changes(t, list, without("l 0 1"), strings.Replace(list, "    - a # a\n\n", "", 1))
}

// TestManyComments: the time grows with the lines, not faster.
func TestManyComments(t *testing.T) {
	s := read(t, "l:\n"+many(10_000, "  # about %[1]d\n  k%[1]d: v # %[1]d\n    # below %[1]d\n\n"))
	start := time.Now()
	d := edit(t, s.Documents()[0], func(root *yaml.Node) error { return errors.Join(without("l k5000")(root), to("l z", "y")(root)) })
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	if got, want := strings.Count(string(s.With(d).Bytes()), "#"), 29_997; got != want {
		t.Errorf("%d comments, want %d", got, want)
	}
}

var (
	ownLine  = regexp.MustCompile(`^ *# c\d+$`)
	anyEntry = regexp.MustCompile(`^((?: |- )*)((?:k|e)\d+)`)
)

// seat is where a comment is: its column, and the entry that is the nearest in
// front of it in its column or to the left. Of several comments, those behind one
// to the left are on its level.
type seat struct {
	Comment string
	Column  int
	Behind  string
}

// seats finds the comments of a generated text by its lines alone.
func seats(lines []string) (out []seat) {
	level := 1000
	for i, line := range lines {
		switch {
		case ownLine.MatchString(line):
			column := strings.Index(line, "#")
			level = min(level, column)
			s := seat{strings.TrimSpace(line), column, ""}
			for j := i - 1; j >= 0 && s.Behind == ""; j-- {
				if m := anyEntry.FindStringSubmatch(lines[j]); m != nil && len(m[1])-len(strings.TrimLeft(m[1], " ")) <= level && starts(m[1]) <= level {
					s.Behind = m[2]
				}
			}
			out = append(out, s)
		case strings.TrimSpace(line) != "":
			level = 1000
		}
	}
	return out
}

// starts returns the column of the first "-", or of the name, behind such a text.
func starts(front string) int {
	if i := strings.Index(front, "-"); i >= 0 {
		return i
	}
	return len(front)
}

// drawn is a document that was drawn, and the names that are in it.
type drawn struct {
	*rapid.T
	lines    []string
	names    []string
	comments int
}

// between draws comments and blank lines.
func (d *drawn) between() {
	for range rapid.SampledFrom([]int{0, 0, 0, 1, 2, 4}).Draw(d.T, "between") {
		if rapid.IntRange(0, 3).Draw(d.T, "blank") == 0 {
			d.lines = append(d.lines, "")
			continue
		}
		d.lines = append(d.lines, strings.Repeat(" ", rapid.IntRange(0, 9).Draw(d.T, "column"))+fmt.Sprintf("# c%d", d.comments))
		d.comments++
	}
}

func (d *drawn) name(kind string) string {
	d.names = append(d.names, fmt.Sprintf("%s%d", kind, len(d.names)))
	return d.names[len(d.names)-1]
}

// mapping draws a mapping in a column; front is what is on its first line.
func (d *drawn) mapping(column, depth int, front string) {
	for i := range rapid.IntRange(1, 3).Draw(d.T, "fields") {
		if i > 0 || strings.TrimSpace(front) == "" {
			d.between()
			front = strings.Repeat(" ", column)
		}
		line := front + d.name("k") + ":"
		kind := rapid.IntRange(0, 6).Draw(d.T, "value")
		step := rapid.IntRange(1, 4).Draw(d.T, "step")
		switch {
		case kind == 0 && depth > 0:
			d.lines = append(d.lines, line+" # a mapping")
			d.mapping(column+step, depth-1, "")
		case kind == 1 && depth > 0:
			d.lines = append(d.lines, line)
			d.list(column+step*rapid.IntRange(0, 1).Draw(d.T, "indented"), depth-1)
		case kind == 2:
			text := strings.Repeat(" ", column+step)
			d.lines = append(d.lines, line+" |  # a text", text+"# no comment", "", text+" x",
				strings.Repeat(" ", column)+d.name("k")+": x") // or what is drawn next could be in the text
		case kind == 3:
			d.lines = append(d.lines, line+` "x # y"   # in quotes`)
		case kind == 4:
			d.lines = append(d.lines, line+" [x, # in flow", "  'y # z']")
		default:
			d.lines = append(d.lines, line+" x # plain")
		}
	}
}

func (d *drawn) list(column, depth int) {
	for range rapid.IntRange(1, 3).Draw(d.T, "entries") {
		d.between()
		front := strings.Repeat(" ", column) + "- "
		if depth > 0 && rapid.Bool().Draw(d.T, "deep") {
			d.mapping(column+2, depth-1, front)
			continue
		}
		d.lines = append(d.lines, front+d.name("e")+" # an entry")
	}
}

// find returns the list or mapping that a name or a text is in, and its place.
func find(n *yaml.Node, name string) (*yaml.Node, int) {
	for i, child := range n.Content {
		if child.Value == name {
			return n, i
		}
		if in, at := find(child, name); in != nil {
			return in, at
		}
	}
	return nil, 0
}

// TestComments: in any document, after any change, each comment that does not
// belong to what was deleted is there once, in its column and behind the entry
// that it was behind.
func TestComments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &drawn{T: t}
		d.mapping(0, 4, "")
		d.between()
		text := strings.Join(d.lines, "\n") + "\n"
		s, err := document.Read("f", []byte(text))
		if err != nil {
			t.Fatalf("%v\nof\n%s", err, text)
		}
		name := rapid.SampledFrom(d.names).Draw(t, "name")
		op := rapid.SampledFrom([]string{"set", "add", "delete"}).Draw(t, "op")
		want, ending := seats(d.lines), false
		added := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "k999"}
		e, err := s.Documents()[0].Edit(func(root *yaml.Node) error {
			in, i := find(root, name)
			ending = op == "set" || in == root || in.Kind == yaml.SequenceNode
			switch {
			case op == "set" && in.Kind == yaml.MappingNode && in.Content[i+1].Kind == yaml.ScalarNode:
				in.Content[i+1] = added
			case op == "set" && in.Kind == yaml.SequenceNode:
				name, in.Content[i] = "", added
			case op == "add" && in.Kind == yaml.MappingNode:
				in.Content = append(in.Content, added, added)
			case op == "add":
				in.Content = append(in.Content, added)
			case op == "delete" && len(in.Content) > 2:
				if lines, ok := cut(d.lines, name); ok {
					in.Content = slices.Delete(in.Content, i, i+map[yaml.Kind]int{yaml.MappingNode: 2, yaml.SequenceNode: 1}[in.Kind])
					want = seats(lines)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		out := string(s.With(e).Bytes())
		again, err := document.Read("again", []byte(out))
		if err != nil || !again.Documents()[0].Same(e) {
			t.Fatalf("%s %s of\n%s\ncomes back as another document (%v)\n%s", op, name, text, err, out)
		}
		got := seats(strings.Split(out, "\n"))
		for i := range min(len(got), len(want)) {
			if b := want[i].Behind; got[i].Behind == "k999" && ending {
				got[i].Behind = b // which took its place; or was added to a document or a compact list, where what follows is in the same column
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s %s (-want +got):\n%s\n%s\nbecomes\n%s", op, name, diff, text, out)
		}
		nothing, err := again.Documents()[0].Edit(func(*yaml.Node) error { return nil })
		if err != nil || string(again.With(nothing).Bytes()) != out {
			t.Fatalf("a second write of\n%s\ngives (%v)\n%s", out, err, again.With(nothing).Bytes())
		}
	})
}

// cut returns the lines without an entry and its comments. It does not cut the
// first field of a list entry, whose line stays.
func cut(lines []string, name string) ([]string, bool) {
	entry := regexp.MustCompile(`^((?: |- )*)` + name + `\b`)
	first := slices.IndexFunc(lines, entry.MatchString)
	front := entry.FindStringSubmatch(lines[first])[1]
	column := len(front)
	if strings.HasPrefix(name, "e") {
		column -= 2
	}
	if strings.Contains(front[:column], "-") {
		return nil, false
	}
	last := first
	for i := first + 1; i < len(lines); i++ {
		blanks := len(lines[i]) - len(strings.TrimLeft(lines[i], " "))
		m := anyEntry.FindStringSubmatch(lines[i])
		compact := !strings.HasPrefix(name, "e") && strings.HasPrefix(lines[i][blanks:], "-")
		if m != nil && (blanks < column || blanks == column && !compact) {
			break
		}
		if !ownLine.MatchString(lines[i]) && lines[i] != "" {
			last = i
		}
	}
	end := last + 1
	for i := end; i < len(lines); i++ {
		if lines[i] == "" {
			continue
		}
		if !ownLine.MatchString(lines[i]) || strings.Index(lines[i], "#") <= column {
			break
		}
		end = i + 1
	}
	for first > 0 && ownLine.MatchString(lines[first-1]) && strings.Index(lines[first-1], "#") == column {
		first--
	}
	return slices.Concat(lines[:first], lines[end:]), true
}
