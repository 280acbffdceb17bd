package config

import (
	"strconv"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/redact"
	"github.com/cryptctl/cryptctl/secret"
)

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

// ReadStored is Read for a configuration that was in force before: what is wrong with it
// beside encryption, such as a certificate that this version cannot read, does not
// keep a machine from its disks. It is left out, and in [Config.LeftOut].
func ReadStored(sources ...Source) (*Config, error) {
	var r reader
	for _, s := range sources {
		r.leftOut = &input{Name: s.Name}
		r.source(s.Name, s.Data)
		r.config.LeftOut = append(r.config.LeftOut, r.leftOut.Sorted()...)
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

	leftOut *input // mistakes beside encryption, nil where they are mistakes
}

// aside is a cursor for what has nothing to do with encryption.
func (r *reader) aside(c cursor) cursor {
	if r.leftOut != nil {
		c.in = r.leftOut
	}
	return c
}

func (r *reader) source(name string, data []byte) {
	in := &input{Name: name}
	for _, d := range document.Documents(in, data) {
		root := d.Root()
		r.document(cursor{in: in}.at(root, root.Line, ""))
		shownBefore(r.aside(cursor{in: in}).in, root, nil)
	}
	r.errs = append(r.errs, in.Sorted()...)
}

// shownBefore reports values that are what a secret is shown as: with those of a
// configuration that was shown, the secrets that stood there would be lost.
func shownBefore(in *input, n *yaml.Node, path []string) {
	if n.Kind == yaml.ScalarNode && !in.Dropped() && redact.Shown(n.Value) {
		verb := "has "
		if n.Value == secret.Placeholder {
			verb = "is "
		}
		in.Fail(n.Line, document.ShownPath(path), verb+secret.Placeholder+", which is shown in the place of a secret",
			"use the configuration that was shown, or config show --show-secrets")
	}
	for i, child := range n.Content {
		step := "[" + strconv.Itoa(i) + "]"
		if n.Kind == yaml.MappingNode {
			step = nameOf(n.Content[i&^1])
		}
		shownBefore(in, child, append(path, step))
	}
}

func (r *reader) finish() (*Config, error) {
	if len(r.errs) > 0 {
		r.config.Wipe()
		return nil, r.errs
	}
	return &r.config, nil
}
