package machineconfig_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// reason is a difference to Talos that package patch lists: where the results
// differ, or what Talos says where it fails and we do not.
type reason struct {
	name  string
	where string // of a path such as "VolumeConfig.encryption.keys[0].slot"
	needs string // in the configuration or a patch
	fails string // of Talos' error
}

// bySlot is the one of which [keysAre] knows the result.
const bySlot = "keys merge by slot"

func listed() []reason {
	return []reason{
		{name: bySlot, where: `(^|\.)encryption\.keys\b|systemDiskEncryption\.(state|ephemeral)\.keys\b`, needs: "slot:"},
		{name: "what the patch does not have stays", where: `\.provisioning\.(minSize|diskSelector\.match)$|\.(ca|clientIdentity)\.(crt|key)$`},
		{name: "a URL is one value", where: `\.endpoint$|^KmsgLogConfig\.url$`, fails: `url\.Userinfo\.\w+: merge not possible`},
		{name: "a word that is there overwrites", where: `\.(provider|filesystem\.type|ingress|table)$`, needs: `none|accept|unspec`},
		{name: "a word that is there overwrites", where: `^\w*VolumeConfig\.encryption\.`, needs: `provider: none`},
		{name: "a size is one value", where: `\.provisioning\.maxSize$`, needs: `%`},
		{name: "selectors with physical are compared", where: `^v1alpha1\.machine\.network\.interfaces\b`, needs: "physical:"},
		{name: "what Talos cannot merge is replaced", fails: `(netip|InstallDiskSizeMatcher)\.?\w*\.\w+: merge not possible|netip\..*: merge not possible`},
		{name: "null is no value", fails: `crash: reflect: call of reflect.Value.Type on zero Value`, needs: "null"},
		{name: "a deletion in a document that is not there is done", fails: `left \*decoder\.|named patch delete`},
		{name: "a document that only deletes is not added", where: `^\w+\.(apiVersion|kind|name|ingress|table|action|portSelector\.protocol)$`, needs: `\$patch`},
		{name: "a document that only deletes is not added", fails: "conflicting documents", needs: `\$patch`},
		{name: "deletion by a number", fails: `lookup failed`, needs: `slot:|vlanId:`},
		{name: "deletion of a name in brackets", fails: `cannot delete an inner key`, needs: `\[fd00`},
		{name: "deletion in a certificate", fails: `(crt|key)': lookup failed`},
	}
}

// reasons returns the listed reasons for all differences of two outcomes; ok is
// false when one has none.
func reasons(want, got outcome, text string) (why []string, ok bool) {
	add := func(name string) {
		if !slices.Contains(why, name) {
			why = append(why, name)
		}
	}
	find := func(match func(r reason) bool) bool {
		i := slices.IndexFunc(listed(), func(r reason) bool { return match(r) && (r.needs == "" || matches(r.needs, text)) })
		if i >= 0 {
			add(listed()[i].name)
		}
		return i >= 0
	}
	switch {
	case got.err != nil && matches(`slot \d+ is there twice`, got.err.Error()):
		return []string{"a slot that is twice in a patch is refused"}, true
	case got.err != nil && want.err == nil && matches(`there is no entry with this`, got.err.Error()) && matches(`: ""`, text):
		return []string{"an entry is not found by an empty text"}, true
	case got.err != nil && want.err == nil:
		return nil, false
	case want.err != nil:
		ok := find(func(r reason) bool { return r.fails != "" && matches(r.fails, want.err.Error()) })
		return why, ok
	}
	for _, path := range differences(values(want.text), values(got.text)) {
		if !find(func(r reason) bool { return r.where != "" && matches(r.where, path) }) {
			return nil, false
		}
	}
	return why, true
}

func matches(pattern, text string) bool { return regexp.MustCompile(pattern).MatchString(text) }

// values returns the scalars of the documents by path, empty lists and mappings
// left out.
func values(text string) map[string]string {
	out := map[string]string{}
	for _, doc := range strings.Split(text, "---\n") {
		var n yaml.Node
		if err := yaml.Unmarshal([]byte(doc), &n); err != nil {
			panic(err)
		}
		if n.Kind == 0 {
			continue
		}
		kind := "v1alpha1"
		if m := regexp.MustCompile(`(?m)^kind: (\w+)$`).FindStringSubmatch(doc); m != nil {
			kind = m[1]
		}
		flatten(n.Content[0], kind, out)
	}
	return out
}

func flatten(n *yaml.Node, path string, out map[string]string) {
	for i, child := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			flatten(child, fmt.Sprintf("%s[%d]", path, i), out)
		case i%2 == 1:
			flatten(child, path+"."+n.Content[i-1].Value, out)
		}
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" && n.Value != "" {
		out[path] += n.Value + "\n" // of several documents of a kind
	}
}

func differences(a, b map[string]string) (out []string) {
	for path, value := range a {
		if b[path] != value {
			out = append(out, path)
		}
	}
	for path := range b {
		if _, both := a[path]; !both {
			out = append(out, path)
		}
	}
	return out
}
