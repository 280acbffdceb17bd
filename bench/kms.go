package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cryptctl/cryptctl/kms/audit"
)

// Targets and load of the key server. The load is bounded, so that all of it takes
// a minute and a half.
const (
	targetServer = 0.7 // of the empty handler's throughput, at least

	stormNodes = 10_000
	keptNodes  = 256 // with a connection each
	steadySpan = 800 * time.Millisecond
	stormSpan  = time.Minute // who has no answer by then gets none
)

// keyServer compares a key server, as kms serve runs it, with an empty handler.
func (b *bench) keyServer(ctx context.Context) ([]row, error) {
	files, err := limitFiles()
	if err != nil {
		return nil, err
	}
	f, err := b.newFleet(ctx, stormNodes)
	if err != nil {
		return nil, err
	}
	rows, err := b.steady(ctx, f)
	if err != nil {
		return nil, err
	}
	for _, s := range []stormy{{"paced", true, min(2, b.slow())}, {"all at once", false, 1}} {
		of, err := b.storms(ctx, f, s, min(stormNodes, files-256)) // a connection is a file
		if err != nil {
			return nil, fmt.Errorf("storm, %s: %w", s.name, err)
		}
		rows = append(rows, of...)
	}
	return rows, f.verify(ctx)
}

// duel is a key server and an empty handler that are measured in turn.
type duel struct {
	sides    [2]*served
	outcomes [2][]outcome
	begin    load
	busy     time.Duration // of both servers, in all rounds
}

// open starts both sides anew.
func (d *duel) open(ctx context.Context, b *bench, f *fleet) (err error) {
	if d.sides[0], err = b.startKeyServer(ctx, f); err != nil {
		return err
	}
	if d.sides[1], err = b.startEmpty(ctx, f); err != nil {
		return errors.Join(err, d.sides[0].stop())
	}
	return nil
}

func (d *duel) close() error { return errors.Join(d.sides[0].stop(), d.sides[1].stop()) }

// round measures one side once, and keeps what it saw.
func (d *duel) round(side int, do func() outcome) (o outcome, err error) {
	s := d.sides[side]
	before, err := s.busy()
	if err != nil {
		return o, err
	}
	o = do()
	after, err := s.busy()
	if err != nil {
		return o, err
	}
	o.server = after - before
	if o.memory, err = s.peak(); err != nil {
		return o, err
	}
	d.outcomes[side] = append(d.outcomes[side], o)
	d.busy += o.server
	return o, nil
}

// row compares a value of each outcome.
func (d *duel) row(name, unit string, value func(outcome) float64) row {
	r := row{Case: name, Unit: unit, Elsewhere: d.begin.elsewhere(d.busy)}
	for _, o := range d.outcomes[0] {
		r.Ours = append(r.Ours, value(o))
	}
	for _, o := range d.outcomes[1] {
		r.Peer = append(r.Peer, value(o))
	}
	return r
}

// shape is how callers share connections.
type shape struct {
	name  string
	nodes int // with a connection each
	lanes int // calls on their way on each
}

func shapes() []shape {
	return []shape{{"256 connections", keptNodes, 1}, {"8 connections of 32 calls", 8, 32}}
}

// steady compares nodes that unseal all the time, with certificates and with
// connections that are kept.
func (b *bench) steady(ctx context.Context, f *fleet) (rows []row, err error) {
	if err := f.certify(keptNodes); err != nil {
		return nil, err
	}
	var d duel
	if err := d.open(ctx, b, f); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := f.seal(ctx, d.sides[0]); err != nil {
		return nil, err
	}
	for _, s := range shapes() {
		of, err := b.steadyShape(ctx, f, d.sides, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		rows = append(rows, of...)
	}
	return rows, nil
}

func (b *bench) steadyShape(ctx context.Context, f *fleet, sides [2]*served, s shape) ([]row, error) {
	d := duel{sides: sides}
	var crowds [2]*crowd
	for i := range sides {
		c, err := f.dialer(sides[i]).crowd(f.nodes[:s.nodes], s.lanes)
		if err != nil {
			return nil, err
		}
		defer c.close()
		crowds[i] = c
	}
	// The first round warms up: keys are unwrapped, and connections made.
	before, err := b.steadyRounds(ctx, f, &d, crowds, 1)
	if err != nil {
		return nil, err
	}
	d.outcomes, d.busy, d.begin = [2][]outcome{}, 0, startLoad()
	after, err := b.steadyRounds(ctx, f, &d, crowds, b.normal())
	if err != nil {
		return nil, err
	}
	rows := d.steadyRows("unseal, " + s.name)
	rows[0].Note = perAnswer(before, after)
	return rows, nil
}

// steadyRounds runs both sides in turn, and returns the key server's counts after
// it. A call that fails ends the measurement.
func (b *bench) steadyRounds(ctx context.Context, f *fleet, d *duel, crowds [2]*crowd, rounds int) (map[string]float64, error) {
	for range rounds {
		for side, s := range d.sides {
			o, err := d.round(side, func() outcome { return crowds[side].run(ctx, steadySpan) })
			if err == nil && o.failed+o.refused > 0 {
				err = fmt.Errorf("%d calls were refused, %d failed: %w\n%s", o.refused, o.failed, o.first, s.said())
			}
			if err != nil {
				return nil, err
			}
			f.answered(side, len(o.took))
		}
	}
	return d.sides[0].counts(ctx)
}

func (d *duel) steadyRows(name string) []row {
	rate := d.row(name, perSecond, outcome.rate)
	rate.Target, rate.AtLeast = targetServer, true
	all := d.row(name+": CPU of a call, server and client", seconds, func(o outcome) float64 { return o.perCall(o.server + o.client) })
	server := d.row(name+": CPU of a call, server", seconds, func(o outcome) float64 { return o.perCall(o.server) })
	return append([]row{rate, server, all}, d.times(name)...)
}

// times are how long callers waited.
func (d *duel) times(name string) []row {
	return []row{
		d.row(name+": p50", seconds, func(o outcome) float64 { return o.percentile(0.5).Seconds() }),
		d.row(name+": p99", seconds, func(o outcome) float64 { return o.percentile(0.99).Seconds() }),
	}
}

// stormy is how a storm comes; see [dialer.storm].
type stormy struct {
	name   string
	paced  bool
	rounds int
}

// storms compares the boot of all nodes at once. Each round is that of servers that
// were just started: no key is unwrapped, and no memory was used before.
func (b *bench) storms(ctx context.Context, f *fleet, s stormy, flight int) ([]row, error) {
	d, note := duel{begin: startLoad()}, ""
	for range s.rounds {
		var err error
		if note, err = b.stormRound(ctx, f, &d, s.paced, flight); err != nil {
			return nil, err
		}
	}
	rows := d.stormRows(fmt.Sprintf("storm of %d, %s", len(f.nodes), s.name))
	rows[0].Note = note
	return rows, nil
}

func (d *duel) stormRows(name string) []row {
	rows := append([]row{
		d.row(name, seconds, func(o outcome) float64 { return o.wall.Seconds() }),
		d.row(name+": CPU of the server", seconds, func(o outcome) float64 { return o.server.Seconds() }),
	}, d.times(name)...)
	none := d.row(name+": without an answer", nodes, func(o outcome) float64 { return float64(o.refused + o.failed) })
	none.Note = d.unanswered()
	return append(rows,
		d.row(name+": peak memory", mebi, func(o outcome) float64 { return float64(o.memory) / (1 << 20) }),
		d.row(name+": on their way at a time", nodes, func(o outcome) float64 { return float64(o.flight) }),
		none)
}

// stormRound runs both sides once, and returns what the key server did.
func (b *bench) stormRound(ctx context.Context, f *fleet, d *duel, paced bool, flight int) (note string, err error) {
	if err := d.open(ctx, b, f); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	before, err := d.sides[0].counts(ctx)
	if err != nil {
		return "", err
	}
	for side, s := range d.sides {
		within, cancel := context.WithTimeout(ctx, stormSpan)
		o, err := d.round(side, func() outcome { return f.dialer(s).storm(within, f.bare(), flight, paced) })
		cancel()
		if err != nil {
			return "", err
		}
		f.answered(side, len(o.took))
	}
	after, err := d.sides[0].counts(ctx)
	return perAnswer(before, after), err
}

// unanswered says why nodes got no answer; "" if all did.
func (d *duel) unanswered() string {
	for side, name := range []string{"key server", "empty handler"} {
		for _, o := range d.outcomes[side] {
			if o.refused+o.failed > 0 {
				return fmt.Sprintf("%s: %d refused for overload, %d failed: %v", name, o.refused, o.failed, o.first)
			}
		}
	}
	return ""
}

// perAnswer says what the key server did for its answers, by its own counters.
func perAnswer(before, after map[string]float64) string {
	of := func(name string) float64 { return after["cryptctl_kms_"+name] - before["cryptctl_kms_"+name] }
	n := of("wait_seconds_count") // of nodes
	return fmt.Sprintf("%.0f answers, %.0f audit records, %.1f records a sync, %.3f store reads and %.3f KEK calls an answer, %.0f refused for overload",
		n, of("audit_records_total"), of("audit_records_total")/of("audit_syncs_total"), of("store_reads_total")/n, of("kek_calls_total")/n, of("overload_total"))
}

// verify holds the audit log against what was answered: each answer is on record.
func (f *fleet) verify(ctx context.Context) error {
	r, err := audit.Verify(ctx, f.in("audit"))
	if err != nil {
		return err
	}
	if r.Records < f.answers {
		return fmt.Errorf("the audit log has %d records for %d answers", r.Records, f.answers)
	}
	return nil
}
