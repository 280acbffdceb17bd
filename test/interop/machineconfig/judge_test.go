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

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/patch"
)

// outcome is what one side makes of a configuration and its patches.
type outcome struct {
	text    string // as Talos writes it
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
	if err != nil && strings.Contains(err.Error(), "merge type mismatch left *decoder.") {
		// It merges into the deletion of a document that was not there.
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
	return outcome{text: text, err: err}
}

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
		case want.err != nil && got.err != nil:
			option.add("with the option: refused by both")
		case want.err == nil && got.err == nil && want.text == got.text:
			option.add("with the option: the same result")
		default:
			option.report(t, seed, config, patches, want, got)
		}
		got := here(patch.Options{}, config, patches...)
		switch why, ok := reasons(want, got, strings.Join(patches, "\n")+config); {
		case want.err != nil && got.err != nil:
			plain.add("refused by both")
		case want.err == nil && got.err == nil && want.text == got.text:
			plain.add("the same result")
		case !ok:
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
			got := here(o, config, patches...)
			switch {
			case !o.Talos && want.err == nil && got.err != nil && strings.Contains(got.err.Error(), "there is nothing to replace"):
				c.add("refused here, because Talos replaces what is not there")
			case !o.Talos && want.text != got.text && yaml11.MatchString(config):
				c.add("another one, because Talos reads yes and no as YAML 1.1")
			case want.err != nil && got.err != nil:
				c.add("refused by both")
			case want.err == nil && got.err == nil && want.text == got.text:
				c.add("the same result")
			default:
				c.report(t, seed, config, patches, want, got)
			}
		}
	})
	c.summary(t)
}

// yaml11 finds the words that are truth values in YAML 1.1 only.
var yaml11 = regexp.MustCompile(`(: y|: no|\bon: )`)
