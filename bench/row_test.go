package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []float64
		want   float64
	}{
		{"one", []float64{3}, 3},
		{"odd, not in order", []float64{9, 1, 5}, 5},
		{"even: the mean of the two in the middle", []float64{8, 1, 2, 4}, 3},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if !math.IsNaN(median(nil)) {
		t.Error("the median of nothing is a number")
	}
}

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		name       string
		ours, peer []float64
		target     float64
		want       string // ratio, paired, least, greatest
		met        string
	}{
		{"both under the target", []float64{1, 2, 3}, []float64{4, 4, 4}, 0.5, "0.50 0.50 0.25 0.75", "yes"},
		// Drift: the machine gets slower, and the pairs see what the medians do not.
		{"medians under the target, pairs over it", []float64{1, 2, 9}, []float64{1, 4, 9}, 0.5, "0.50 1.00 0.50 1.00", "no"},
		{"no target", []float64{1}, []float64{2}, 0, "0.50 0.50 0.50 0.50", "-"},
		{"nothing to nothing", []float64{0}, []float64{0}, 0.5, "- - - -", "no"},
	} {
		s := row{Ours: c.ours, Peer: c.peer, Target: c.target}.summary()
		got := strings.Join([]string{s.Ratio.String(), s.Paired.String(), s.Least.String(), s.Greatest.String()}, " ")
		met := "-"
		if s.Met != nil {
			met = map[bool]string{true: "yes", false: "no"}[*s.Met]
		}
		if got != c.want || met != c.met {
			t.Errorf("%s: %s, met %s, want %s, met %s", c.name, got, met, c.want, c.met)
		}
	}
}

func TestRowIsJSON(t *testing.T) {
	r := row{Case: "nothing", Unit: seconds, Ours: []float64{0}, Peer: []float64{0}}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"case":"nothing"`, `"ours":[0]`, `"ratio":null`, `"ours_median":0`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s lacks %s", b, want)
		}
	}
}
