package luks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// object is a JSON object that keeps the order of its members and every member
// it does not know: both must survive a rewrite, since the order of keyslots is
// the order in which cryptsetup tries them.
//
// A value is *object, []any, json.Number, string, bool or nil.
type object struct {
	members []member
}

type member struct {
	name  string
	value any
}

func (o *object) index(name string) int {
	return slices.IndexFunc(o.members, func(m member) bool { return m.name == name })
}

func (o *object) get(name string) (any, bool) {
	if i := o.index(name); i >= 0 {
		return o.members[i].value, true
	}
	return nil, false
}

// child returns the member of that name if it is an object.
func (o *object) child(name string) (*object, bool) {
	v, _ := o.get(name)
	c, ok := v.(*object)
	return c, ok
}

// set changes a member in place or appends a new one.
func (o *object) set(name string, value any) {
	if i := o.index(name); i >= 0 {
		o.members[i].value = value
		return
	}
	o.members = append(o.members, member{name, value})
}

func (o *object) remove(name string) {
	o.members = slices.DeleteFunc(o.members, func(m member) bool { return m.name == name })
}

// newObject builds an object from alternating names and values.
func newObject(pairs ...any) *object {
	o := &object{}
	for i := 0; i < len(pairs); i += 2 {
		o.members = append(o.members, member{pairs[i].(string), pairs[i+1]})
	}
	return o
}

func cloneValue(v any) any {
	switch v := v.(type) {
	case *object:
		return v.clone()
	case []any:
		c := make([]any, len(v))
		for i := range v {
			c[i] = cloneValue(v[i])
		}
		return c
	}
	return v
}

func (o *object) clone() *object {
	c := &object{members: make([]member, len(o.members))}
	for i, m := range o.members {
		c.members[i] = member{m.name, cloneValue(m.value)}
	}
	return c
}

// encode gives the compact form, as cryptsetup writes it.
func (o *object) encode() []byte { return appendValue(nil, o) }

func appendValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case *object:
		dst = append(dst, '{')
		for i, m := range v.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, m.name), ':')
			dst = appendValue(dst, m.value)
		}
		return append(dst, '}')
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, e)
		}
		return append(dst, ']')
	case json.Number:
		return append(dst, v...)
	case string:
		return appendString(dst, v)
	case bool:
		return strconv.AppendBool(dst, v)
	}
	return append(dst, "null"...)
}

func appendString(dst []byte, s string) []byte {
	if plain(s) {
		return append(append(append(dst, '"'), s...), '"')
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// plain reports whether a text is quoted, in JSON and in Go, by quotation marks
// alone. Nearly all that is in a header is; the encoders proper are slow.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// Limits of a document, since 4 MiB of JSON can be built to take a hundred times
// that to hold. LUKS2 needs 5 levels, tokens of others some more; 32 keyslots
// with 32 tokens have under 2,000 values.
const (
	maxDepth      = 32
	maxValues     = 16 << 10
	maxDuplicates = 16 // that are named; one is enough to refuse a header
)

// parser reads one document. Duplicate members are legal JSON for cryptsetup
// (the last one counts), so they are noted here and judged in trust.go.
type parser struct {
	dec        *json.Decoder
	values     int
	path       []string
	duplicates []string // paths of members that occur twice
}

// parseDocument reads the one object in text, which must hold nothing else.
func parseDocument(text []byte) (doc *object, duplicates []string, err error) {
	if !utf8.Valid(text) { // our rule: json-c, which cryptsetup uses, lets it pass
		return nil, nil, errors.New("not UTF-8")
	}
	p := &parser{dec: json.NewDecoder(bytes.NewReader(text))}
	p.dec.UseNumber()
	v, err := p.value()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, nil, err
	}
	doc, ok := v.(*object)
	if !ok {
		return nil, nil, errors.New("not an object")
	}
	if _, err := p.dec.Token(); err != io.EOF {
		return nil, nil, fmt.Errorf("more text after the object, at byte %d", p.dec.InputOffset())
	}
	return doc, p.duplicates, nil
}

func (p *parser) value() (any, error) {
	tok, err := p.dec.Token()
	if err != nil {
		return nil, err
	}
	if p.values++; p.values > maxValues {
		return nil, fmt.Errorf("more than %d values", maxValues)
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return tok, nil
	}
	if len(p.path) == maxDepth {
		return nil, fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	p.path = append(p.path, "")
	defer func() { p.path = p.path[:len(p.path)-1] }()
	if delim == '{' {
		return p.object()
	}
	return p.array()
}

func (p *parser) object() (any, error) {
	o := &object{}
	seen := map[string]int{}
	for p.dec.More() {
		tok, err := p.dec.Token()
		if err != nil {
			return nil, err
		}
		name := tok.(string) // the decoder lets only strings stand here
		p.path[len(p.path)-1] = printable(name)
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		if i, dup := seen[name]; dup {
			if len(p.duplicates) < maxDuplicates {
				p.duplicates = append(p.duplicates, strings.Join(p.path, "."))
			}
			o.members[i].value = v
			continue
		}
		seen[name] = len(o.members)
		o.members = append(o.members, member{name, v})
	}
	_, err := p.dec.Token()
	return o, err
}

func (p *parser) array() (any, error) {
	a := []any{}
	for p.dec.More() {
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		a = append(a, v)
	}
	_, err := p.dec.Token()
	return a, err
}

// printable makes a name from a disk fit for a message: cut, and with control
// characters escaped.
func printable(name string) string {
	const longest = 64
	if len(name) > longest {
		name = name[:longest] + "..."
	}
	if plain(name) {
		return name
	}
	quoted := strconv.Quote(name)
	return quoted[1 : len(quoted)-1]
}

// decimal is a uint64 as LUKS2 stores it: a JSON string of digits.
func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func number(n int) json.Number { return json.Number(strconv.Itoa(n)) }
