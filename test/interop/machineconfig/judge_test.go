package machineconfig_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/siderolabs/talos/pkg/machinery/config/config"
	"github.com/siderolabs/talos/pkg/machinery/config/configloader"
	"github.com/siderolabs/talos/pkg/machinery/config/configpatcher"
	"github.com/siderolabs/talos/pkg/machinery/config/encoder"
	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/patch"
)

// outcome is what one side makes of a configuration and its patches.
type outcome struct {
	text    string // as Talos writes it
	raw     string // as we write it
	err     error
	crashed bool
}

// normal returns a configuration as Talos writes it.
func normal(text []byte) (string, error) {
	c, err := configloader.NewFromBytes(text)
	if err != nil {
		return "", err
	}
	return encoded(c.Documents())
}

// theirs is what Talos makes of it.
func theirs(text string, patches ...string) (o outcome) {
	defer func() {
		if r := recover(); r != nil {
			o = outcome{crashed: true, err: fmt.Errorf("crash: %v", r)}
		}
	}()
	var loaded []configpatcher.Patch
	for _, p := range patches {
		l, err := configpatcher.LoadPatch([]byte(p))
		if err != nil {
			return outcome{err: fmt.Errorf("load: %w", err)}
		}
		loaded = append(loaded, l)
	}
	out, err := configpatcher.Apply(configpatcher.WithBytes([]byte(text)), loaded)
	if err != nil && (strings.Contains(err.Error(), "merge type mismatch left *decoder.") || strings.Contains(err.Error(), "named patch delete")) {
		// It merges into, or deletes from, the deletion of a document that was not there.
		return outcome{err: err, crashed: true}
	}
	if err != nil {
		return outcome{err: fmt.Errorf("apply: %w", err)}
	}
	c, err := out.Config()
	if err != nil {
		return outcome{err: fmt.Errorf("result: %w", err)}
	}
	text, err = encoded(c.Documents())
	return outcome{text: text, err: err}
}

// encoded returns the documents as Talos writes them, but for the deletions of
// what is not there: Talos keeps them as documents, and crashes on writing them.
func encoded(docs []config.Document) (string, error) {
	var texts []string
	for _, d := range docs {
		if _, deletion := d.(configloader.Selector); deletion {
			continue
		}
		text, err := encoder.NewEncoder(d, encoder.WithComments(encoder.CommentsDisabled)).Encode()
		if err != nil {
			return "", err
		}
		texts = append(texts, string(text))
	}
	return strings.Join(texts, "---\n"), nil
}

// here is what we make of it.
func here(options patch.Options, config string, patches ...string) outcome {
	s, err := document.Read("config", []byte(config))
	if err != nil {
		return outcome{err: err}
	}
	var loaded []*patch.Patch
	for _, text := range patches {
		p, err := patch.Load("patch", []byte(text))
		if err != nil {
			return outcome{err: err}
		}
		loaded = append(loaded, p)
	}
	before := string(s.Bytes())
	out, err := options.Apply(s, loaded...)
	if string(s.Bytes()) != before || before != config {
		panic("the configuration changed")
	}
	if err != nil {
		return outcome{err: err}
	}
	text, err := normal(out.Bytes())
	return outcome{text: text, raw: string(out.Bytes()), err: err}
}

// same reports whether both have a result, and the same.
func same(want, got outcome) bool { return want.err == nil && got.err == nil && want.text == got.text }

// cases is how many configurations and patches the judge is asked about.
const cases = 12_000

// tally counts what came of them.
type tally struct {
	sync.Mutex
	counts map[string]int
	shown  int
}

func (c *tally) add(name string) {
	c.Lock()
	defer c.Unlock()
	c.counts[name]++
}

// report fails the test with a case, of which the first few are shown.
func (c *tally) report(t *testing.T, seed uint64, config string, patches []string, want, got outcome) {
	c.add("DIFFERENT")
	c.Lock()
	defer c.Unlock()
	if c.shown++; c.shown > 3 {
		t.Fail()
		return
	}
	t.Errorf("seed %d: Talos says %v, we say %v\nconfiguration:\n%s\npatches:\n%s\n-theirs +ours:\n%s", seed, want.err, got.err,
		config, strings.Join(patches, "\n===\n"), cmp.Diff(strings.Split(want.text, "\n"), strings.Split(got.text, "\n")))
}

func (c *tally) summary(t *testing.T) {
	names := slices.Sorted(maps.Keys(c.counts))
	for _, name := range names {
		t.Logf("SUMMARY %6d %s", c.counts[name], name)
	}
}

// each runs f on all seeds, in two halves at a time.
func each(t *testing.T, n int, f func(seed uint64)) {
	var wg sync.WaitGroup
	for half := range 2 {
		wg.Go(func() {
			for seed := half; seed < n; seed += 2 {
				f(uint64(seed))
			}
		})
	}
	wg.Wait()
}

func newGenerator(seed, purpose uint64) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, purpose))}
}

// drawStrategic draws a configuration and one to three strategic merge patches.
func drawStrategic(seed uint64) (config string, patches []string) {
	g := newGenerator(seed, 1)
	config = g.config()
	for range 1 + g.IntN(2)*g.IntN(3) {
		patches = append(patches, g.strategic())
	}
	return config, patches
}

// TestStrategic: with the option, our result is that of Talos, and where Talos
// refuses so do we. Without it, there is a reason that package patch gives for
// each difference.
func TestStrategic(t *testing.T) {
	option, plain := tally{counts: map[string]int{}}, tally{counts: map[string]int{}}
	each(t, cases, func(seed uint64) {
		config, patches := drawStrategic(seed)
		if _, err := normal([]byte(config)); err != nil {
			t.Errorf("seed %d: the configuration is not one: %v\n%s", seed, err, config)
			return
		}
		want := theirs(config, patches...)
		switch got := here(patch.Options{Talos: true}, config, patches...); {
		case want.crashed:
			option.add("with the option: Talos crashes")
		case same(want, got):
			option.add("with the option: the same result")
		case alike(want, got):
			option.add("with the option: refused by both")
		default:
			option.report(t, seed, config, patches, want, got)
		}
		got := here(patch.Options{}, config, patches...)
		if same(want, got) {
			plain.add("the same result")
			return
		}
		why, ok := reasons(want, got, strings.Join(patches, "\n")+config)
		switch {
		case alike(want, got):
			plain.add("refused by both")
		case !ok || slices.Contains(why, bySlot) && !keysAre(got.raw, config, patches):
			plain.report(t, seed, config, patches, want, got)
		default:
			for _, w := range why {
				plain.add("differ: " + w)
			}
		}
	})
	option.summary(t)
	plain.summary(t)
	if same := option.counts["with the option: the same result"]; same < cases/2 {
		t.Errorf("of %d cases only %d have a result", cases, same)
	}
}

// TestOperations: RFC 6902 patches give the same, with and without the option.
func TestOperations(t *testing.T) {
	c := tally{counts: map[string]int{}}
	each(t, cases/2, func(seed uint64) {
		g := newGenerator(seed, 2)
		g.patch = false
		doc := g.documents()[:1]
		config, patches := write(doc), []string{g.operations(doc[0])}
		want := theirs(config, patches...)
		for _, o := range []patch.Options{{}, {Talos: true}} {
			got, name := here(o, config, patches...), "the same result"
			if !o.Talos && !same(want, got) && !alike(want, got) {
				if again, words := oldWords(config); words {
					got, name = here(o, again, patches...), "the same result, when yes and no are truth values as in YAML 1.1"
				}
			}
			switch {
			case same(want, got):
				c.add(name)
			case alike(want, got):
				c.add("refused by both")
			case !o.Talos && got.err != nil && absent.MatchString(got.err.Error()):
				c.add("refused here, because Talos replaces and copies what is not there")
			default:
				c.report(t, seed, config, patches, want, got)
			}
		}
	})
	c.summary(t)
	if same := c.counts["the same result"]; same < cases/4 {
		t.Errorf("of %d outcomes only %d are the same result", cases, same)
	}
}

var absent = regexp.MustCompile(`there is nothing to replace|copy \S+: there is nothing at this path`)

// oldWords returns a document with the truth values of YAML 1.1 as those of 1.2,
// and whether it has any: Talos reads it so before an RFC 6902 patch.
func oldWords(config string) (text string, found bool) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(config), &doc); err != nil {
		panic(err)
	}
	words := map[string]string{"y": "true", "yes": "true", "on": "true", "n": "false", "no": "false", "off": "false"}
	var walk func(n *yaml.Node, name bool)
	walk = func(n *yaml.Node, name bool) {
		if truth := words[n.Value]; truth != "" && n.Kind == yaml.ScalarNode && n.Style == 0 {
			n.Value, n.Tag, found = truth, "!!bool", true
		}
		if name {
			n.Tag = "!!str"
		}
		for i, child := range n.Content {
			walk(child, n.Kind == yaml.MappingNode && i%2 == 0)
		}
	}
	walk(&doc, false)
	return write([]*yaml.Node{doc.Content[0]}), found
}
