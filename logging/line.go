package logging

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"
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
	case error:
		f[name] = v.Error()
	case time.Duration:
		f[name] = v.String()
	case time.Time:
		f[name] = v.UTC().Format(time.RFC3339Nano)
	case bool, int64, uint64, string:
		f[name] = v
	case float64:
		f[name] = fmt.Sprint(v) // JSON has neither NaN nor infinity
	default:
		f[name] = fmt.Sprint(v) // and no type prints what it hides from fmt
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

// line is the line for a destination, whose tags replace fields of the same name.
// One that is too long loses all but the fields that each line has and the tags,
// and the end of its message; it says so.
func (f fields) line(tags map[string]string) []byte {
	all := maps.Clone(f)
	for name, value := range tags {
		all[name] = value
	}
	text := encode(all)
	if len(text) <= MaxLine {
		return text
	}
	cut := fields{"truncated": true}
	for _, name := range []string{fieldMessage, fieldLevel, fieldService, fieldTime} {
		if v, ok := f[name]; ok {
			cut[name] = v
		}
	}
	message, _ := cut[fieldMessage].(string)
	cut[fieldMessage] = strings.ToValidUTF8(message[:min(len(message), MaxLine/8)], "") // escapes make it six times as long
	for name, value := range tags {
		cut[name] = value
	}
	return encode(cut)
}

// encode gives one line with its newline. Names are in the order of the alphabet.
func encode(f fields) []byte {
	text, err := json.Marshal(f)
	if err != nil { // of no type that add lets through
		text = fmt.Appendf(nil, `{"msg":%q}`, "a log record that is no JSON: "+err.Error())
	}
	return append(text, '\n')
}
