package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	"github.com/cryptctl/cryptctl/secret"
)

const (
	// MaxSource bounds one source. The largest machine configurations, with
	// manifests inlined, are below 1 MiB, and the parser allocates up to two
	// hundred times the size of its input.
	MaxSource = 10 << 20

	// maxCommas bounds the entries of [a, b] and {a: b, c: d} in one source:
	// the parser takes a kilobyte and some microseconds for each, which for
	// 10 MiB of them makes 9 GiB and a quarter of a minute.
	maxCommas = 500_000

	// maxDepth bounds the nesting, since a walk over a document recurses. No
	// machine configuration nests deeper than about 15.
	maxDepth = 100
)

// Source is one source of configuration documents.
type Source struct {
	Name string // for messages, usually the path
	Data []byte // read only; the caller wipes it
}

// Read reads the documents of several sources as one machine configuration. A
// source without documents, or without encryption, is none the worse for it.
// The error, if any, is of type [Errors] and holds every mistake found.
func Read(sources ...Source) (*Config, error) {
	var r reader
	for _, s := range sources {
		r.source(s.Name, s.Data)
	}
	return r.finish()
}

// ReadFiles reads the documents of several files as one machine configuration;
// "-" is the standard input. The error, if any, is of type [Errors].
func ReadFiles(paths ...string) (*Config, error) {
	var r reader
	for _, path := range paths {
		in := &input{name: path}
		if path == "-" {
			in.name = "stdin"
		}
		data, ok := readFile(in, path, MaxSource)
		if !ok {
			r.errs = append(r.errs, in.sorted()...)
			continue
		}
		r.source(in.name, data.Bytes())
		data.Wipe()
	}
	return r.finish()
}

// reader builds one configuration from its sources.
type reader struct {
	config Config
	errs   Errors
	blocks map[string][]block // by volume id
}

func (r *reader) source(name string, data []byte) {
	in := &input{name: name}
	for _, root := range documents(in, data) {
		r.document(root)
	}
	r.errs = append(r.errs, in.sorted()...)
}

func (r *reader) finish() (*Config, error) {
	if len(r.errs) > 0 {
		r.config.Wipe()
		return nil, r.errs
	}
	return &r.config, nil
}

// documents parses a source into its documents; empty ones are left out. What
// is before a syntax error is returned.
func documents(in *input, data []byte) []cursor {
	if len(data) > MaxSource {
		tooLarge(in, MaxSource)
		return nil
	}
	if bytes.Count(data, []byte{','}) > maxCommas {
		in.fail(0, "", fmt.Sprintf("has more than %d commas, which no machine configuration has", maxCommas),
			"check that this is the right file")
		return nil
	}
	// Aliases need no limit here: a cursor follows them only where a field is
	// read, and lists have limits of their own.
	loader, err := yaml.NewLoader(bytes.NewReader(data),
		yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		panic("config: yaml options: " + err.Error()) // they are constant
	}
	var out []cursor
	for {
		var doc yaml.Node
		if err := loader.Load(&doc); err == io.EOF {
			return out
		} else if err != nil {
			syntax(in, err, data)
			return out
		}
		root := cursor{in: in}.at(doc.Content[0], doc.Content[0].Line, "")
		duplicates(in, root.node, nil)
		if root.exists() {
			out = append(out, root)
		}
	}
}

// syntax reports what the parser found. Its messages about anchors and
// characters quote the source, which may be a passphrase without its quotes.
func syntax(in *input, err error, data []byte) {
	var le *yaml.LoadError
	if !errors.As(err, &le) {
		in.fail(0, "", "is not YAML", "write the file as YAML")
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
	case strings.HasPrefix(problem, "exceeded max depth"):
		problem, fix = fmt.Sprintf("nests deeper than %d levels", maxDepth), "a machine configuration is flatter; use another file"
	}
	in.fail(line, "", problem, fix)
}

// duplicates reports every field that is there twice, in all of the document:
// which of the two counts differs from reader to reader. Aliases are not
// followed, their target is walked where it stands.
func duplicates(in *input, n *yaml.Node, path []string) {
	switch n.Kind {
	case yaml.SequenceNode:
		for i, entry := range n.Content {
			duplicates(in, entry, append(path, "["+strconv.Itoa(i)+"]"))
		}
	case yaml.MappingNode:
		first := make(map[string]int, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			name := nameOf(k)
			line, twice := first[name]
			switch {
			case k.Kind != yaml.ScalarNode && k.Kind != yaml.AliasNode:
				// A list or mapping as a name, which no configuration has.
			case !twice:
				first[name] = k.Line
			default:
				in.fail(k.Line, duplicatePath(path, name),
					"the field is there twice, first on line "+strconv.Itoa(line), "keep one of them")
			}
			duplicates(in, n.Content[i+1], append(path, name))
		}
	}
}

// duplicatePath leaves out a name inside of static, which could be a passphrase
// that lost its field name.
func duplicatePath(path []string, name string) string {
	out := ""
	for i, p := range append(path, name) {
		switch {
		case i > 0 && path[i-1] == "static" && p != "passphrase":
			return out
		case strings.HasPrefix(p, "["):
			out += p
		default:
			out = join(out, shown(p))
		}
	}
	return out
}

// readFile reads a file, or the standard input for "-", of at most limit bytes
// into locked memory.
func readFile(in *input, path string, limit int) (*secret.Bytes, bool) {
	var f io.Reader = os.Stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			unreadable(in, err)
			return nil, false
		}
		defer file.Close()
		f = file
	}
	data, err := secret.Read(f, limit)
	switch {
	case errors.Is(err, secret.ErrTooLong):
		tooLarge(in, limit)
	case err != nil:
		unreadable(in, err)
	}
	return data, err == nil
}

func tooLarge(in *input, limit int) {
	in.fail(0, "", fmt.Sprintf("is larger than %d KiB", limit>>10), "check that this is the right file")
}

func unreadable(in *input, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		in.fail(0, "", "no such file", "check the path")
	case errors.Is(err, fs.ErrPermission):
		in.fail(0, "", "may not be read by this user", "run as its owner or as root")
	case errors.Is(err, syscall.EISDIR):
		in.fail(0, "", "is a directory", "name the files in it")
	default:
		if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
			err = pe.Err
		}
		in.fail(0, "", "cannot be read: "+err.Error(), "check the path and the device it is on")
	}
}
