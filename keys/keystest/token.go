package keystest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cryptctl/cryptctl/keys"
)

// maxToken is how long a token may be: 32 of them must fit the JSON area of a
// volume as it is formatted by default.
const maxToken = 1 << 10

// tokenForm: a token must be what LUKS2 and the reconciler take.
func tokenForm(t *trial) {
	for _, req := range demand() {
		e, ok := t.enroll(t.new(), req)
		if !ok {
			return
		}
		if len(t.Tokens) == 0 {
			if e.token != nil {
				t.fail("a token of %d bytes from a provider that needs none", len(e.token))
			}
			continue
		}
		var token struct {
			Type     string
			Keyslots *[]string
		}
		switch err := json.Unmarshal(e.token, &token); {
		case err != nil:
			t.fail("the token is not a JSON object with type and keyslots: %w", err)
		case !slices.Contains(t.Tokens, token.Type):
			t.fail("the token's type is %q, must be one of %q", token.Type, t.Tokens)
		case token.Keyslots == nil:
			t.fail("the token has no keyslots")
		case len(e.token) > maxToken:
			t.fail("the token has %d bytes: 32 of more than %d do not fit a header", len(e.token), maxToken)
		}
		if strings.Contains(string(e.token), string(e.passphrase)) {
			t.fail("the passphrase stands in the token")
		}
	}
}

// rewrittenToken: another tool may write the header, and so the token, in
// another form that means the same.
func rewrittenToken(t *trial) {
	p := t.new()
	e, ok := t.enroll(p, demand()[0])
	if !ok || e.token == nil {
		return
	}
	var v map[string]any
	if err := json.Unmarshal(e.token, &v); err != nil {
		return // of tokenForm
	}
	sorted, _ := json.MarshalIndent(v, "\t", "  ")
	v["added-by-another-tool"] = map[string]any{"a": []int{1}}
	more, _ := json.Marshal(v)
	for name, token := range map[string]json.RawMessage{"sorted and indented": sorted, "with a member more": more} {
		e.token = token
		t.same(p, e, "from a token "+name)
	}
}

// damagedToken: what cannot be a token is malformed. Of what can, the outcome is
// the passphrase, other bytes or an error, but one that names its class.
func damagedToken(t *trial) {
	p := t.new()
	e, ok := t.enroll(p, demand()[0])
	if !ok || len(t.Tokens) == 0 {
		return
	}
	for _, d := range damages(e.token) {
		got, err := p.Recover(t.ctx, e.req, d.token)
		if t.saw(got, err); err != nil && !classed(err) {
			t.fail("%s: the error names no class: %v", d.name, err)
		}
		if d.hopeless && !errors.Is(err, keys.ErrMalformed) {
			t.fail("%s: must be malformed, the error is: %v", d.name, err)
		}
		got.Wipe()
	}
}

type damage struct {
	name     string
	token    json.RawMessage
	hopeless bool
}

func damages(token json.RawMessage) []damage {
	all := []damage{
		{"no token", nil, true},
		{"an empty token", json.RawMessage{}, true},
		{"null", json.RawMessage("null"), true},
		{"true", json.RawMessage("true"), true},
		{"a number", json.RawMessage("7"), true},
		{"a text", json.RawMessage(`"text"`), true},
		{"an array", json.RawMessage("[]"), true},
		{"an empty object", json.RawMessage("{}"), true},
		{"a deep array", json.RawMessage(strings.Repeat("[", 20_000)), true},
		{"a deep object", json.RawMessage(strings.Repeat(`{"a":`, 20_000)), true},
		{"not UTF-8", json.RawMessage("{\"type\":\"\xff\xfe\"}"), true},
		{"type and keyslots only", json.RawMessage(fmt.Sprintf(`{"type":%q,"keyslots":[]}`, tokenType(token))), true},
		{"another type", json.RawMessage(strings.Replace(string(token), tokenType(token), "another", 1)), true},
	}
	for cut := 1; cut < len(token); cut += 1 + len(token)/32 {
		all = append(all, damage{fmt.Sprintf("cut after %d of %d bytes", cut, len(token)), token[:cut], true})
	}
	var v map[string]any
	if json.Unmarshal(token, &v) == nil {
		all = append(all, edits(v, v, "")...)
	}
	return all
}

func tokenType(token json.RawMessage) string {
	var t struct{ Type string }
	_ = json.Unmarshal(token, &t)
	return t.Type
}

// edits damages every member of an object inside root, one at a time.
func edits(root, in map[string]any, path string) (all []damage) {
	for _, name := range slices.Sorted(maps.Keys(in)) {
		was := in[name]
		at := path + name
		put := func(what string, v any) {
			in[name] = v
			token, err := json.Marshal(root)
			in[name] = was
			if err == nil {
				all = append(all, damage{at + " " + what, token, false})
			}
		}
		delete(in, name)
		if token, err := json.Marshal(root); err == nil {
			all = append(all, damage{at + " removed", token, false})
		}
		in[name] = was
		for _, v := range []any{nil, true, -1, 1e300, "", "text", "\x00", "!", "AAAA", strings.Repeat("A", 1<<13), []any{}, []any{nil}, map[string]any{}} {
			text, _ := json.Marshal(v)
			put("made "+string(text[:min(len(text), 20)]), v)
		}
		switch v := was.(type) {
		case string:
			for i := 0; i < len(v); i += 1 + len(v)/16 {
				put(fmt.Sprintf("changed at character %d", i), v[:i]+string(v[i]^1)+v[i+1:])
			}
			put("doubled", v+v)
			put("cut in half", v[:len(v)/2])
		case map[string]any:
			all = append(all, edits(root, v, at+".")...)
		}
	}
	return all
}
