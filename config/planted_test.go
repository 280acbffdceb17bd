package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/config/diff"
	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/patch"
	"github.com/cryptctl/cryptctl/config/redact"
)

// planted is the secret that no output may have.
const planted = "pLaNtEd"

// grounds are configurations with a place for a secret, %s. It is below a name of one,
// and indented by eight blanks where the secret goes on.
func grounds() []string {
	return []string{
		"machine:\n  type: worker\n  token:\n        %s\n  sysctls: {a: b}\n",
		"machine:\n  systemDiskEncryption:\n    state:\n      keys:\n      - static:\n         passphrase:\n            %s\n",
		"machine:\n  systemDiskEncryption:\n    state:\n      keys:\n      - static:\n            %s\n",
		"apiVersion: v1alpha1\nkind: VolumeConfig\nname: STATE\nencryption:\n  provider: luks2\n  keys:\n  - static:\n     passphrase:\n        %s\n",
		"apiVersion: v1\nkind: X\nenv:\n  API_KEY:\n        %s\n  A: b\n",
		"apiVersion: v1\nkind: X\nenv:\n- name: DB_PASS\n  value:\n        %s\n",
		"machine:\n  ca:\n    crt: a\n    key:\n        %s\n",
		"apiVersion: v1\nkind: X\ntokens:\n- a: 1\n- b:\n        %s\n",
	}
}

// plantedForms are ways to write a secret, @, that has no quotes, and what else stands
// on its line.
func plantedForms() []string {
	return []string{
		"@", "'@'", "\"@\"", "!@", "!!@ x", "!<@> x", "&@ x", "&a @", "*@", "[@]", "[@, *@]", "{@}", "{@: null, @: 1}", "{a: @, b: !@ c}", "@: x",
		"? @\n: b", "? [@]\n: b", "- @\n- !@", "|\n@", ">@", "|@", "@@", "@ # @", "# @\nx", "!!null @", "!!bool @", "!!int @", "!!binary @", "<<: {@: 1}",
		"<<: @", "'@", "\"@", "`@", "%@", "@: {@: [@]}\n@: 2", "{@: {$patch: delete}}", "- @: 1\n  $patch: delete", "{@: {keys: [{slot: 1}]}}", "{@: {systemDiskEncryption: {a: b}}}", "{@.: {@: @, @: x}}", "true", "http://u:@@h",
	}
}

// plant returns a configuration with the secret in it.
func plant(ground, form string) string {
	form = strings.ReplaceAll(strings.ReplaceAll(form, "@", planted), "\n", "\n            ")
	return fmt.Sprintf(ground, form)
}

// outputs calls f with all that is shown of a configuration: itself, what is different
// from another, and every mistake in it, also as a patch of the other if it has no
// aliases: what a patch had in common is not known of its result.
func outputs(text, other string, f func(what, shown string)) {
	failed := func(what string, err error) {
		if err != nil {
			f("error of "+what, fmt.Sprintf("%v %+v", err, err))
			for _, e := range errorsOf(err) {
				f("error of "+what, fmt.Sprintf("%+v", *e))
			}
		}
	}
	c, err := config.Read(config.Source{Name: "f", Data: []byte(text)})
	if failed("validate", err); err == nil {
		c.Wipe()
	}
	o, err := document.Read("other", []byte(other))
	if err != nil {
		panic(err)
	}
	p, err := patch.Load("patch", []byte(text))
	if failed("loading the patch", err); err == nil && !strings.Contains(text, "*a") {
		for _, options := range []patch.Options{{}, {Talos: true}} {
			out, err := options.Apply(o, p)
			if failed("patch", err); err == nil {
				shown("patch", out, o, f, failed)
			}
		}
	}
	s, err := document.Read("f", []byte(text))
	if failed("reading", err); err == nil {
		shown("show", s, o, f, failed)
	}
}

func errorsOf(err error) (all config.Errors) {
	errors.As(err, &all)
	return all
}

// shown shows a configuration, and how it differs from another, in both directions.
func shown(what string, s, other *document.Stream, f func(what, shown string), failed func(string, error)) {
	clean, err := redact.Stream(s)
	if failed(what, err); err == nil {
		f(what, string(clean.Bytes()))
	}
	for _, pair := range [][2]*document.Stream{{s, other}, {other, s}, {s, new(document.Stream)}} {
		changes, err := diff.Options{}.Streams(pair[0], pair[1])
		failed("diff", err)
		f("diff", fmt.Sprint(changes))
	}
}

// checkPlanted fails when the secret is in what is shown.
func checkPlanted(t *testing.T, ground, form, other string) (shown int) {
	t.Helper()
	text := plant(ground, form)
	outputs(text, other, func(what, out string) {
		shown++
		if strings.Contains(out, planted) {
			t.Errorf("%s of\n%s\nhas the secret:\n%s", what, text, out)
		}
	})
	return shown
}

// TestPlanted: a secret is in nothing that is shown, however it is written.
func TestPlanted(t *testing.T) {
	t.Parallel()
	n := 0
	for _, ground := range grounds() {
		for _, form := range plantedForms() {
			for _, other := range []string{"x", "{a: 1, z: [1]}"} {
				n += checkPlanted(t, ground, form, fmt.Sprintf(ground, other))
			}
		}
	}
	if n < 5000 {
		t.Errorf("%d outputs", n)
	}
	if !strings.Contains(plant("token: %s\n", "@"), planted) {
		t.Error("there is no secret to be found")
	}
}

// FuzzPlanted writes a secret in any way, and an alias of it somewhere else.
func FuzzPlanted(f *testing.F) {
	for i := range grounds() {
		for _, form := range plantedForms() {
			f.Add(uint8(i), form, form != "@")
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, form string, alias bool) {
		if len(form) > 4<<10 || strings.ContainsAny(form, "\r\u0085\u2028\u2029") || strings.Contains(form, planted) || strings.Count(form, "*") > 6 {
			return // with another line end, it is no longer below the name
		}
		all := grounds()
		ground := all[int(which)%len(all)]
		other := fmt.Sprintf(ground, "x")
		if alias && !strings.Contains(form, "&") {
			form, ground = "&a "+form, ground+"again: [*a, {b: *a}]\n"
		}
		checkPlanted(t, ground, form, other)
	})
}
