package deploy_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// series is what a server exports: for each metric its labels and their values.
type series map[string]map[string]map[string]bool

// parseMetrics reads Prometheus' text format.
func parseMetrics(text string) (series, error) {
	line := regexp.MustCompile(`^([a-z_]+)(?:\{(.*)\})? [-+0-9.eE]+$`)
	label := regexp.MustCompile(`([a-z_]+)="([^"]*)",?`)
	all := series{}
	for l := range strings.Lines(text) {
		l = strings.TrimSuffix(l, "\n")
		if strings.HasPrefix(l, "#") {
			continue
		}
		m := line.FindStringSubmatch(l)
		if m == nil {
			return nil, fmt.Errorf("not a sample: %q", l)
		}
		if all[m[1]] == nil {
			all[m[1]] = map[string]map[string]bool{}
		}
		for _, pair := range label.FindAllStringSubmatch(m[2], -1) {
			if all[m[1]][pair[1]] == nil {
				all[m[1]][pair[1]] = map[string]bool{}
			}
			all[m[1]][pair[1]][pair[2]] = true
		}
	}
	return all, nil
}

// scraped are labels that Prometheus adds, and what it says of a scrape itself.
func scraped(label string) bool { return label == "job" || label == "instance" }

// check says what is wrong with an expression: it names a metric, a label or a
// value that no server has, or its brackets do not match. It is no parser of
// PromQL: it knows the words that are used here, and what else is there is a metric.
func (s series) check(expr string) (metrics []string, err error) {
	expr = strings.NewReplacer("$__rate_interval", "5m").Replace(expr)
	if err := balanced(expr); err != nil {
		return nil, err
	}
	selector := regexp.MustCompile(`([a-z_]+)\{([^}]*)\}`)
	rest := expr
	for _, m := range selector.FindAllStringSubmatch(expr, -1) {
		if err := s.matchers(m[1], m[2]); err != nil {
			return nil, err
		}
		rest = strings.Replace(rest, m[0], m[1], 1)
	}
	grouping := regexp.MustCompile(`\bby \(([a-z_, ]*)\)`)
	labels := []string{}
	for _, m := range grouping.FindAllStringSubmatch(rest, -1) {
		labels = append(labels, strings.Split(m[1], ", ")...)
	}
	rest = regexp.MustCompile(`\[[0-9]+[smh]\]`).ReplaceAllString(grouping.ReplaceAllString(rest, ""), "")
	for _, word := range regexp.MustCompile(`[a-zA-Z_][a-zA-Z0-9_]*`).FindAllString(rest, -1) {
		switch word {
		case "sum", "max", "rate", "increase", "histogram_quantile", "time":
			continue
		}
		if word != "up" && s[word] == nil {
			return nil, fmt.Errorf("there is no metric %s", word)
		}
		metrics = append(metrics, word)
	}
	for _, l := range labels {
		for _, m := range metrics {
			if !scraped(l) && s[m][l] == nil {
				return nil, fmt.Errorf("%s has no label %s", m, l)
			}
		}
	}
	if len(metrics) == 0 {
		return nil, fmt.Errorf("no metric in it")
	}
	return metrics, nil
}

// matchers checks what stands in the braces behind a metric.
func (s series) matchers(metric, text string) error {
	matcher := regexp.MustCompile(`^([a-z_]+)(=~|!~|!=|=)("[^"]*")$`)
	for part := range strings.SplitSeq(text, ",") {
		m := matcher.FindStringSubmatch(part)
		if m == nil {
			return fmt.Errorf("%s: %q is no matcher", metric, part)
		}
		if scraped(m[1]) {
			continue
		}
		values, value := s[metric][m[1]], ""
		if values == nil {
			return fmt.Errorf("%s has no label %s", metric, m[1])
		}
		value, err := strconv.Unquote(m[3])
		if err != nil {
			return err
		}
		for alternative := range strings.SplitSeq(value, "|") {
			re, err := regexp.Compile("^(?:" + alternative + ")$")
			if err != nil {
				return err
			}
			found := false
			for v := range values {
				found = found || v == alternative || strings.HasSuffix(m[2], "~") && re.MatchString(v)
			}
			if !found {
				return fmt.Errorf("%s: no %s is %q", metric, m[1], alternative)
			}
		}
	}
	return nil
}

func balanced(expr string) error {
	var open []rune
	closes := map[rune]rune{')': '(', ']': '[', '}': '{'}
	quoted := false
	for _, c := range expr {
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
		case strings.ContainsRune("([{", c):
			open = append(open, c)
		case closes[c] != 0:
			if len(open) == 0 || open[len(open)-1] != closes[c] {
				return fmt.Errorf("%q closes nothing", c)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 || quoted {
		return fmt.Errorf("a bracket or a quotation is not closed")
	}
	return nil
}
