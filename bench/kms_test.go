package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestMain lets this program be the empty handler, too.
func TestMain(m *testing.M) {
	if len(os.Args) != 3 || os.Args[1] != "-empty" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := serveEmpty(ctx, os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestPercentile(t *testing.T) {
	hundred := outcome{}
	for i := range 100 {
		hundred.took = append(hundred.took, time.Duration(i+1))
	}
	for _, c := range []struct {
		name  string
		o     outcome
		share float64
		want  time.Duration
	}{
		{"nothing", outcome{}, 0.5, 0},
		{"one", outcome{took: []time.Duration{7}}, 0.99, 7},
		{"the middle of three", outcome{took: []time.Duration{1, 2, 9}}, 0.5, 2},
		{"the first half of four", outcome{took: []time.Duration{1, 2, 3, 4}}, 0.5, 2},
		{"99 of 100", hundred, 0.99, 99},
		{"all", hundred, 1, 100},
		{"none", hundred, 0, 1},
	} {
		if got := c.o.percentile(c.share); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestOutcome: only calls that were answered count, and the others as what they are.
func TestOutcome(t *testing.T) {
	first := errors.New("the first failure")
	o := joined([]outcome{
		outcomeOf(30, nil, 10, nil, 5, status.Error(codes.ResourceExhausted, "full")),
		outcomeOf(20, nil, 1, first, 1, errors.New("another one")),
		outcomeOf(),
	})
	o.wall = 2 * time.Second
	if got, want := fmt.Sprint(o.took, o.refused, o.failed), "[10ns 20ns 30ns] 1 2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if !errors.Is(o.first, first) {
		t.Errorf("the first failure is %v", o.first)
	}
	if o.rate() != 1.5 || o.perCall(6*time.Second) != 2 {
		t.Errorf("%v a second and %v s each; 3 calls in 2 s that took 6 s", o.rate(), o.perCall(6*time.Second))
	}
}

func outcomeOf(pairs ...any) (o outcome) {
	for i := 0; i < len(pairs); i += 2 {
		err, _ := pairs[i+1].(error)
		o.add(time.Duration(pairs[i].(int)), err)
	}
	return o
}

// TestTogether: every worker runs once, at the same time as the others, and the
// time is that of the slowest.
func TestTogether(t *testing.T) {
	var in atomic.Int64
	all := make(chan struct{})
	o := together(5, func(worker int, o *outcome) {
		if in.Add(1) == 5 {
			close(all)
		}
		<-all
		o.add(time.Duration(9-worker), nil)
	})
	if fmt.Sprint(o.took) != "[5ns 6ns 7ns 8ns 9ns]" || o.wall <= 0 {
		t.Errorf("%v in %v", o.took, o.wall)
	}
}

// TestStormBound: not more than the limit are on their way, and nobody is left out
// because there is no server.
func TestStormBound(t *testing.T) {
	for _, paced := range []bool{true, false} {
		o := dialer{address: "127.0.0.1:0"}.storm(t.Context(), make([]caller, 50), 7, paced)
		if o.failed != 50 || len(o.took) != 0 || o.flight < 1 || o.flight > 7 {
			t.Errorf("paced %v: %d failed, %d were answered, %d at a time", paced, o.failed, len(o.took), o.flight)
		}
	}
}

func TestListening(t *testing.T) {
	for _, c := range []struct{ text, who, address string }{
		{"time=2026-11-23T00:00:00.000Z level=INFO msg=listening for=nodes address=127.0.0.1:4050", "nodes", "127.0.0.1:4050"},
		{"level=INFO msg=listening for=metrics address=[::1]:1", "metrics", "[::1]:1"},
		{"level=INFO msg=\"shutting down\"", "", ""},
		{"", "", ""},
	} {
		if who, address := listening(c.text); who != c.who || address != c.address {
			t.Errorf("%q: %q at %q", c.text, who, address)
		}
	}
}

func TestReadMetrics(t *testing.T) {
	got, err := readMetrics(strings.NewReader("# HELP a What it is.\n# TYPE a counter\na 12\nb_total{code=\"OK\"} 3\nc_sum 1.5\n\n"))
	if want := map[string]float64{"a": 12, "c_sum": 1.5}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if _, err := readMetrics(strings.NewReader("a twelve\n")); err == nil {
		t.Error("a metric that is no number is read")
	}
}

func TestPerAnswer(t *testing.T) {
	before := map[string]float64{"cryptctl_kms_wait_seconds_count": 100, "cryptctl_kms_audit_records_total": 100, "cryptctl_kms_audit_syncs_total": 10}
	after := map[string]float64{
		"cryptctl_kms_wait_seconds_count": 300, "cryptctl_kms_audit_records_total": 300, "cryptctl_kms_audit_syncs_total": 14,
		"cryptctl_kms_store_reads_total": 50, "cryptctl_kms_kek_calls_total": 0, "cryptctl_kms_overload_total": 2,
	}
	want := "200 answers, 200 audit records, 50.0 records a sync, 0.250 store reads and 0.000 KEK calls an answer, 2 refused for overload"
	if got := perAnswer(before, after); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestAtLeast: with rates more is better, and the target is met from above.
func TestAtLeast(t *testing.T) {
	for _, c := range []struct {
		ours []float64
		met  bool
	}{{[]float64{70, 80, 90}, true}, {[]float64{60, 65, 90}, false}} {
		r := row{Case: "rate", Unit: perSecond, Ours: c.ours, Peer: []float64{100, 100, 100}, Target: 0.7, AtLeast: true}
		if met := r.summary().Met; met == nil || *met != c.met {
			t.Errorf("%v of 100: it is not met %v", c.ours, c.met)
		}
		if cells := strings.Join(r.cells(), "|"); !strings.Contains(cells, "≥ 0.70") || !strings.Contains(cells, "100 /s") {
			t.Error(cells)
		}
	}
}

// TestKeyServer: a small fleet, both servers as processes of their own, a moment of
// load and a storm of few: all get answers, and each is on record.
func TestKeyServer(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{runs: 1, dir: t.TempDir(), self: self}
	b.cryptctl = b.path("cryptctl")
	if err := build(t.Context(), b.cryptctl); err != nil {
		t.Fatal(err)
	}
	f, err := b.newFleet(t.Context(), 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.certify(4); err != nil {
		t.Fatal(err)
	}
	var d duel
	if err := d.open(t.Context(), b, f); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
		if err := f.verify(t.Context()); err != nil {
			t.Error(err)
		}
		f.answers = 1e9
		if err := f.verify(t.Context()); err == nil {
			t.Error("answers that are not on record are not missed")
		}
	}()
	if err := f.seal(t.Context(), d.sides[0]); err != nil {
		t.Fatal(err)
	}
	before, err := d.sides[0].counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for side, s := range d.sides {
		n += drive(t.Context(), t, f, &d, side, s)
	}
	after, err := d.sides[0].counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := after["cryptctl_kms_wait_seconds_count"] - before["cryptctl_kms_wait_seconds_count"]; int(got) != n || n == 0 {
		t.Errorf("the key server counts %v answers; there were %d", got, n)
	}
}

// drive returns how many answers the key server gave.
func drive(ctx context.Context, t *testing.T, f *fleet, d *duel, side int, s *served) int {
	t.Helper()
	c, err := f.dialer(s).crowd(f.nodes[:4], 2)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	n := 0
	for name, do := range map[string]func() outcome{
		"crowd": func() outcome { return c.run(ctx, 200*time.Millisecond) },
		"storm": func() outcome { return f.dialer(s).storm(ctx, f.bare(), 10, true) },
	} {
		o, err := d.round(side, do)
		if err != nil {
			t.Fatal(err)
		}
		if o.failed+o.refused > 0 || len(o.took) < len(f.nodes) || o.server <= 0 || o.client <= 0 || o.memory < 1<<20 {
			t.Errorf("side %d, %s: %d answered, %d refused, %d failed: %v; CPU %v and %v, %d bytes", side, name, len(o.took), o.refused, o.failed, o.first, o.server, o.client, o.memory)
		}
		f.answered(side, len(o.took))
		if side == 0 {
			n += len(o.took)
		}
	}
	return n
}
