package kms

import (
	"strings"
	"testing"
	"time"
)

// TestBackoff: pauses grow, are bounded, and are not the same for all.
func TestBackoff(t *testing.T) {
	for round := range 70 {
		d := min(4*time.Second, 250*time.Millisecond<<min(round, 10))
		seen := map[time.Duration]bool{}
		for range 100 {
			got := backoff(round)
			if got < d/2 || got > d+d/2 {
				t.Fatalf("round %d: %s, must be about %s", round, got, d)
			}
			seen[got] = true
		}
		if len(seen) < 50 {
			t.Errorf("round %d: %d different pauses of 100", round, len(seen))
		}
	}
}

// TestSpread: a node comes back when the server said or later, and not with all
// others.
func TestSpread(t *testing.T) {
	for _, wish := range []time.Duration{0, 1, time.Second, time.Hour} {
		seen := map[time.Duration]bool{}
		for range 100 {
			got := spread(wish)
			if got < wish || got > wish+wish/2 {
				t.Fatalf("%s: %s", wish, got)
			}
			seen[got] = true
		}
		if wish >= time.Second && len(seen) < 50 {
			t.Errorf("%s: %d different times of 100", wish, len(seen))
		}
	}
}

func TestShown(t *testing.T) {
	uuid := "4c4c4544-0042-3510-8051-b7c04f4e3432"
	for _, test := range []struct{ message, want string }{
		{"", "(no message)"},
		{"node " + uuid + " is frozen", "node " + uuid + " is frozen"},
		{"two\nlines\tand  room", "two lines and room"},
		{"\x1b[2J", "(a message that is not text)"},
		{"\xff", "(a message that is not text)"},
		{"key=" + strings.Repeat("A", 43) + "=, no", "[...], no"},
		{strings.Repeat("ä ", 400), strings.Repeat("ä ", 100) + " ..."},
	} {
		if got := shown(test.message); got != test.want {
			t.Errorf("%q is shown as %q, must be %q", test.message, got, test.want)
		}
	}
}
