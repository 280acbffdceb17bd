package machineconfig_test

import (
	"regexp"
	"slices"
	"strings"
	"sync"
)

// refusal is a way in which both refuse: a part of what Talos says, and of what we
// say.
type refusal struct{ theirs, ours *regexp.Regexp }

// refusals are all of them. What the strict reader says of a result has no row: it
// is Talos' own on both sides and says the same of both.
var refusals = sync.OnceValue(func() (out []refusal) {
	for _, r := range [][2]string{
		{`testing value .* failed: test failed`, `\[\d+\]: test .*: the value there is another one`},
		{`replace operation does not apply: doc is missing`, `replace .*: there is nothing to replace`},
		{`add operation does not apply: doc is missing path`, `add .*: there is nothing to add it to`},
		{`(remove|move|copy|test) operation does not apply: .*missing|Unable to remove nonexistent key|nonexistent key`, `(remove|move|copy|test) .*: there is nothing at this path`},
		{`(remove|move|copy|add|test)\b.*(invalid index|proper array index|invalid syntax)`, `(the list has no such entry|cannot be done)`},
		{`failed to delete path .*: lookup failed`, `there is nothing to delete in the configuration|there is no entry with this`},
		{`merge not possible, left .* is not settable`, `Talos 1.13 fails to merge`},
		{`merge type mismatch left`, `is .+, but the configuration has`},
		// Talos finds these while it loads the patches, of which another one may fail first here.
		{`^load: .*(cannot delete an inner key|conflicting documents)`, `there is nothing to delete in the configuration|there is no entry with this|Talos 1.13 fails to merge|is .+, but the configuration has|of which there can be one`},
		{`cannot delete an inner key`, `\$patch: delete inside of a list entry is not possible`},
		{`conflicting documents`, `of which there can be one`},
	} {
		out = append(out, refusal{regexp.MustCompile(r[0]), regexp.MustCompile(r[1])})
	}
	return out
})

// alike reports whether both refuse, and for the same reason.
func alike(want, got outcome) bool {
	if want.err == nil || got.err == nil {
		return false
	}
	if strictly(want.err) == strictly(got.err) {
		return true
	}
	for _, r := range refusals() {
		if r.theirs.MatchString(want.err.Error()) && r.ours.MatchString(got.err.Error()) {
			return true
		}
	}
	return false
}

// strictly returns what the strict reader says, without lines and their order.
func strictly(err error) string {
	text, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "result: "), "during decoding:")
	head, problems, _ := strings.Cut(lines.ReplaceAllString(text, ""), "construct errors:")
	all := strings.Split(problems, ";")
	slices.Sort(all)
	return head + strings.Join(all, ";")
}

var lines = regexp.MustCompile(`line \d+`)
