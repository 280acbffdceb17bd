package document

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

const (
	// MaxSource bounds one source. The largest machine configurations, with
	// manifests inlined, are below 1 MiB, and the parser allocates up to
	// twenty times the size of a text without marks.
	MaxSource = 10 << 20

	// maxEntries bounds the entries of lists and mappings in block style, one to
	// a line. The largest configurations have ten thousand; to change a document
	// of so many allocates 600 MiB, all in all, and takes most of a second.
	maxEntries = 100_000

	// maxMarks bounds the characters that start or end something: commas, colons,
	// pairs of quotes or brackets, and the like. The parser allocates up to two
	// kilobytes for each, and in flow style keeps them all until the outermost
	// bracket closes, so that 10 MiB of them would take 9 GiB. A mebibyte of
	// dense JSON, as a text of a manifest, has 170,000.
	maxMarks = 250_000

	// maxDepth bounds the nesting, since a walk over a document recurses. No
	// machine configuration nests deeper than about 15.
	maxDepth = 100
)

// Load parses a source into its documents (nodes of yaml.DocumentNode), null
// ones among them.
// Of an input with mistakes, which are in the report, it returns what is before
// the first syntax error. Aliases are left as they are, and cost nothing here.
func Load(in *Report, data []byte) []*yaml.Node {
	if !within(in, data) {
		return nil
	}
	return decode(in, data, 0)
}

// within reports whether the source is within the limits of size.
func within(in *Report, data []byte) bool {
	if len(data) > MaxSource {
		tooLarge(in, MaxSource)
		return false
	}
	switch marks, entries := count(data); {
	case entries > maxEntries:
		in.Fail(0, "", fmt.Sprintf("has more than %d entries, which no machine configuration has", maxEntries),
			"check that this is the right file")
		return false
	case marks > maxMarks:
		in.Fail(0, "", fmt.Sprintf("has more than %d commas, colons, quotes, brackets and other marks, which no machine configuration has", maxMarks),
			"check that this is the right file")
		return false
	}
	return true
}

// decode is Load without the limits of size, for data in front of which there
// are so many lines.
func decode(in *Report, data []byte, lines int) []*yaml.Node {
	loader, err := yaml.NewLoader(bytes.NewReader(data),
		yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		panic("document: yaml options: " + err.Error()) // they are constant
	}
	var out []*yaml.Node
	for {
		var doc yaml.Node
		if err := loader.Load(&doc); err == io.EOF {
			return out
		} else if err != nil {
			syntax(in, err, data, lines)
			return out
		}
		if len(out) == MaxDocuments {
			in.Fail(0, "", fmt.Sprintf("has more than %d documents", MaxDocuments), "check that this is the right file")
			return out
		}
		move(&doc, lines)
		duplicates(in, doc.Content[0], nil)
		out = append(out, &doc)
	}
}

// count counts the marks of YAML, wherever they stand, and of those what may be
// an entry of a list or mapping in block style. Of the latter more than maxDepth
// on one line are a mistake that the parser finds soon enough.
func count(data []byte) (marks, entries int) {
	halves := 0
	for line := range bytes.Lines(data) {
		here := 0
		for i, c := range line {
			switch c {
			case '[', ']', '{', '}', '"', '\'':
				halves++
			case ',', '#', '&', '*', '!':
				marks++
			case ':':
				here++
			case '-', '?': // with a blank or a line end behind it, of which YAML has some beyond ASCII
				if i+1 == len(line) || line[i+1] <= ' ' || line[i+1] >= utf8.RuneSelf {
					here++
				}
			}
		}
		marks += here
		entries += min(maxDepth, here)
	}
	return marks + halves/2, entries
}

// syntax reports what the parser found. Its messages about anchors and
// characters quote the source, which may be a passphrase without its quotes.
func syntax(in *Report, err error, data []byte, lines int) {
	var le *yaml.LoadError
	if !errors.As(err, &le) {
		in.Fail(0, "", "is not YAML", "write the file as YAML")
		return
	}
	problem, _, _ := strings.Cut(le.Message, " (value")
	fix := "mend the YAML on this line or the one above"
	line := le.Mark.Line
	switch {
	case le.Stage == yaml.ReaderStage: // which knows offsets only
		line = 1 + bytes.Count(data[:min(le.Mark.Index, len(data))], []byte{'\n'})
		fix = "write the file as UTF-8, with other characters as escapes in double quotes"
	case strings.HasPrefix(problem, "unknown anchor"):
		problem, fix = "an alias names no anchor of this document", "put text that starts with * in quotes"
	case strings.HasPrefix(problem, "found character '") && strings.Contains(problem, "not allowed in a YAML tag"):
		problem, fix = "a tag has a character that tags do not have", "put text that starts with ! in quotes"
	case strings.HasPrefix(problem, "found incompatible YAML document"):
		problem, fix = "a %YAML directive asks for a version of YAML that is not read", "remove the line that starts with %YAML"
	case strings.HasPrefix(problem, "exceeded max depth"):
		problem, fix = fmt.Sprintf("nests deeper than %d levels", maxDepth), "a machine configuration is flatter; use another file"
	}
	in.Fail(line+lines, "", problem, fix)
}

// move adds so many lines to the positions. Aliases lead to what is moved
// anyway.
func move(n *yaml.Node, lines int) {
	n.Line += lines
	for _, child := range n.Content {
		move(child, lines)
	}
}

// duplicates reports every field that is there twice, in all of the document:
// which of the two counts differs from reader to reader. Aliases are not
// followed, their target is walked where it stands.
func duplicates(in *Report, n *yaml.Node, path []string) {
	switch n.Kind {
	case yaml.SequenceNode:
		for i, entry := range n.Content {
			duplicates(in, entry, append(path, "["+strconv.Itoa(i)+"]"))
		}
	case yaml.MappingNode:
		first := make(map[string]int, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			name := NameOf(k)
			line, twice := first[name]
			switch {
			case k.Kind != yaml.ScalarNode && k.Kind != yaml.AliasNode:
				// A list or mapping as a name, which no configuration has.
			case !twice:
				first[name] = k.Line
			default:
				repeated(in, k, append(path, name), line)
			}
			duplicates(in, n.Content[i+1], append(path, name))
		}
	}
}

// repeated reports a field that was there before. Below a secret its name is left out.
func repeated(in *Report, k *yaml.Node, path []string, first int) {
	if in.Dropped() {
		return
	}
	what := "the field is"
	if len(Visible(path)) < len(path) {
		what = "a field in it is"
	}
	in.Fail(k.Line, ShownPath(path), what+" there twice, first on line "+strconv.Itoa(first), "keep one of them")
}
