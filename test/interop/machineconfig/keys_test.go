package machineconfig_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/patch"
)

type object = map[string]any

// mergedKeys is what package patch says of keys, in other words: the entry of a
// slot gets the fields of the patch, its lists as a whole, and has one kind.
func mergedKeys(keys, patch []any) []any {
	for _, p := range patch {
		p := p.(object)
		i := slices.IndexFunc(keys, func(k any) bool { return fmt.Sprint(k.(object)["slot"]) == fmt.Sprint(p["slot"]) })
		if i < 0 {
			keys = append(keys, p)
			continue
		}
		for _, kind := range []string{"static", "nodeID", "kms", "tpm"} {
			if _, same := p[kind]; !same && (p["static"] != nil || p["nodeID"] != nil || p["kms"] != nil || p["tpm"] != nil) {
				delete(keys[i].(object), kind)
			}
		}
		overwrite(keys[i].(object), p)
	}
	return keys
}

func overwrite(left, right object) {
	for name, r := range right {
		l, both := left[name].(object)
		switch r := r.(type) {
		case object:
			if !both {
				left[name] = r
				continue
			}
			overwrite(l, r)
		default:
			if _, there := left[name]; r != "" || !there {
				left[name] = r
			}
		}
	}
}

// keysOf returns the keys of all volumes by document and place.
func keysOf(text string) map[string][]any {
	out := map[string][]any{}
	for _, doc := range strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "---\n") {
		var d object
		if err := yaml.Unmarshal([]byte(doc), &d); err != nil {
			panic(err)
		}
		at := func(place string, steps ...string) {
			v := any(d)
			for _, s := range steps {
				m, _ := v.(object)
				v = m[s]
			}
			if keys, _ := v.([]any); len(keys) > 0 {
				for _, k := range keys {
					dropNulls(k.(object))
				}
				out[place] = keys
			}
		}
		at(fmt.Sprint(d["kind"], d["name"]), "encryption", "keys")
		if d["kind"] == nil {
			at("state", "machine", "systemDiskEncryption", "state", "keys")
			at("ephemeral", "machine", "systemDiskEncryption", "ephemeral", "keys")
		}
	}
	return out
}

// dropNulls removes the fields that say nothing.
func dropNulls(o object) {
	for name, v := range o {
		switch v := v.(type) {
		case nil:
			delete(o, name)
		case object:
			dropNulls(v)
		}
	}
}

// wantKeys returns the keys that strategic merge patches without deletions make.
func wantKeys(config string, patches []string) map[string][]any {
	want := keysOf(config)
	for _, p := range patches {
		for place, keys := range keysOf(p) {
			want[place] = mergedKeys(want[place], keys)
		}
	}
	return want
}

// keysAre reports whether a result has the keys that it should have. Deletions, and
// keys that had a slot twice before, are for the tests of package patch.
func keysAre(result, config string, patches []string) bool {
	for _, text := range append([]string{config}, patches...) {
		for _, keys := range keysOf(text) {
			if len(mergedKeys(nil, keys)) < len(keys) {
				return true
			}
		}
	}
	return strings.Contains(strings.Join(patches, ""), "$patch") || cmp.Equal(wantKeys(config, patches), keysOf(result))
}

// TestKeys: drawn keys merge by slot into exactly those that the rule makes, where
// every patch has keys that the configuration has.
func TestKeys(t *testing.T) {
	met := 0
	for seed := range uint64(500) {
		g := newGenerator(seed, 4)
		draw := func() string {
			n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
			for _, slot := range g.Perm(3)[:1+g.IntN(3)] {
				key := g.key(true)()
				key.Content[1].Value = fmt.Sprint(slot)
				if g.IntN(2) == 0 {
					key.Content = append(key.Content[:2], scalar("!!str", "tpm"), g.with(entry{"options", g.with(entry{"pcrs", g.list(g.number(0, 7))})})())
				}
				n.Content = append(n.Content, key)
			}
			return "apiVersion: v1alpha1\nkind: VolumeConfig\nname: STATE\nencryption:\n  provider: luks2\n  keys:\n    " +
				strings.ReplaceAll(strings.TrimSpace(write([]*yaml.Node{n})), "\n", "\n    ") + "\n"
		}
		config := draw()
		g.patch = true
		patches := []string{draw(), draw()}
		got := here(patch.Options{}, config, patches...)
		if got.err != nil {
			t.Fatalf("seed %d: %v\n%s\n%s", seed, got.err, config, patches)
		}
		want := wantKeys(config, patches)
		if d := cmp.Diff(want, keysOf(got.raw)); d != "" {
			t.Fatalf("seed %d (-want +got):\n%s\nconfiguration:\n%s\npatches:\n%s", seed, d, config, strings.Join(patches, "\n===\n"))
		}
		if strings.Count(config, "pcrs:") > 0 && strings.Count(strings.Join(patches, ""), "pcrs:") > 0 {
			met++
		}
	}
	if met < 100 {
		t.Errorf("lists in keys meet in %d cases", met)
	}
}
