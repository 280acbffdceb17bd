package config

import "github.com/cryptctl/cryptctl/config/document"

// MaxSource bounds one source in bytes.
const MaxSource = document.MaxSource

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
		in := &input{Name: path}
		if path == "-" {
			in.Name = "stdin"
		}
		data, ok := document.ReadFile(in, path, MaxSource)
		if !ok {
			r.errs = append(r.errs, in.Sorted()...)
			continue
		}
		r.source(in.Name, data.Bytes())
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
	in := &input{Name: name}
	for _, root := range documents(in, data) {
		r.document(root)
	}
	r.errs = append(r.errs, in.Sorted()...)
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
	var out []cursor
	for _, doc := range document.Load(in, data) {
		if root := (cursor{in: in}).at(doc.Content[0], doc.Content[0].Line, ""); root.exists() {
			out = append(out, root)
		}
	}
	return out
}
