package logging

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"time"
	"unicode/utf8"
)

// MaxLine bounds a line in bytes, its newline included: it fits into a datagram.
const MaxLine = 60 << 10

// Fields that every line has, by Talos' names.
const (
	fieldMessage = "msg"
	fieldLevel   = "talos-level"
	fieldService = "talos-service"
	fieldTime    = "talos-time"
)

// fields are the members of a line.
type fields map[string]any

// fieldsOf makes a record a line. Attributes do not replace what each line has.
func fieldsOf(service string, r slog.Record, with []slog.Attr, group string) fields {
	f := fields{}
	for _, a := range with {
		f.add("", a)
	}
	r.Attrs(func(a slog.Attr) bool { f.add(group, a); return true })
	at := r.Time
	if at.IsZero() {
		at = time.Now()
	}
	f[fieldMessage], f[fieldLevel], f[fieldTime] = r.Message, level(r.Level), at.UTC().Format(time.RFC3339Nano)
	if service != "" {
		f[fieldService] = service
	}
	return f
}

// add adds an attribute, those of groups by their path: "volume.slot".
func (f fields) add(group string, a slog.Attr) {
	value := a.Value.Resolve()
	name := path(group, a.Key)
	if value.Kind() == slog.KindGroup {
		for _, inner := range value.Group() {
			f.add(name, inner)
		}
		return
	}
	if name == "" {
		return
	}
	switch v := value.Any().(type) {
	case bool, int64, uint64, string:
		f[name] = v
	case []byte:
		f[name] = string(v)
	case float64:
		if f[name] = v; math.IsNaN(v) || math.IsInf(v, 0) { // which JSON does not have
			f[name] = fmt.Sprint(v)
		}
	case time.Duration:
		f[name] = v.String()
	case time.Time:
		f[name] = v.UTC().Format(time.RFC3339Nano)
	default:
		f[name] = fmt.Sprint(v) // no type prints what it hides from fmt, which survives a nil error too
	}
}

func path(group, name string) string {
	if group == "" || name == "" {
		return group + name
	}
	return group + "." + name
}

// level is a level in Talos' words.
func level(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warn"
	}
	return "error"
}

// with adds tags, which replace fields of the same name.
func (f fields) with(tags map[string]string) fields {
	all := maps.Clone(f)
	for name, value := range tags {
		all[name] = value
	}
	return all
}

// line is the line for a destination with these tags.
func (f fields) line(tags map[string]string) []byte {
	if text := f.with(tags).encode(); len(text) <= MaxLine {
		return text
	}
	return f.cut(tags).encode()
}

// cut leaves of a line that is too long the fields that each line has and the tags,
// and as much of the message as there is room for; it says so.
func (f fields) cut(tags map[string]string) fields {
	short := fields{}
	for _, name := range []string{fieldMessage, fieldLevel, fieldService, fieldTime} {
		if v, ok := f[name]; ok {
			short[name] = v
		}
	}
	message, _ := short[fieldMessage].(string)
	short[fieldMessage], short["truncated"] = "", true
	room := MaxLine - len(short.with(tags).encode())
	short[fieldMessage] = head(message, room)
	return short.with(tags)
}

// head is the beginning of a text that has room in a line.
func head(text string, room int) string {
	for i, r := range text {
		switch {
		case r < ' ' || r == utf8.RuneError || r == '\u2028' || r == '\u2029':
			room -= len(`\u0000`)
		case r == '"' || r == '\\':
			room -= 2
		default:
			room -= utf8.RuneLen(r)
		}
		if room < 0 {
			return text[:i]
		}
	}
	return text
}

// encode gives one line with its newline. Names are in the order of the alphabet.
func (f fields) encode() []byte {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(f); err != nil { // of no type that add lets through
		return fmt.Appendf(nil, `{"msg":%q}`+"\n", "a log record that is no JSON: "+err.Error())
	}
	return text.Bytes()
}
