package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// side is one of those that are compared: commands that run one after another
// and count as one.
type side struct {
	steps  [][]string
	before func() error // puts things in place; not measured
	after  func() error // clears up behind each step; not measured
	fails  string       // what the command says that is meant to fail, and has done its work by then
	// selfTimed says that the one command prints how many nanoseconds the work
	// took, and that this counts instead of the wall time.
	selfTimed bool
}

// command is a side of one command.
func command(argv ...string) side { return side{steps: [][]string{argv}} }

// sample is what one run of a side took.
type sample struct {
	Wall time.Duration
	CPU  time.Duration // user and system
	RSS  int64         // bytes; of the largest of its processes
}

// run measures a side once. A command that fails ends the measurement.
func (s side) run(ctx context.Context) (total sample, err error) {
	if s.before != nil {
		if err := s.before(); err != nil {
			return total, err
		}
	}
	for _, argv := range s.steps {
		one, err := s.runOne(ctx, argv)
		if err == nil && s.after != nil {
			err = s.after()
		}
		if err != nil {
			return total, err
		}
		total.Wall += one.Wall
		total.CPU += one.CPU
		total.RSS = max(total.RSS, one.RSS)
	}
	return total, nil
}

func (of side) runOne(ctx context.Context, argv []string) (s sample, err error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stderr = &stderr
	if of.selfTimed {
		cmd.Stdout = &stdout
	}
	begin := time.Now()
	err = cmd.Run()
	s.Wall = time.Since(begin)
	if of.fails != "" {
		err = failed(err, of.fails, stderr.Bytes())
	}
	if err != nil {
		if ctx.Err() != nil {
			return s, context.Cause(ctx)
		}
		return s, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, stderr.Bytes())
	}
	s.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.RSS = usage.Maxrss << 10 // Linux counts KiB
	}
	if of.selfTimed {
		n, err := strconv.ParseInt(strings.TrimSpace(stdout.String()), 10, 64)
		if err != nil {
			return s, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
		}
		s.Wall = time.Duration(n)
	}
	return s, nil
}

// failed turns the failure that was meant into none, and everything else, a
// success too, into one.
func failed(err error, says string, stderr []byte) error {
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited() && bytes.Contains(stderr, []byte(says)):
		return nil
	case err == nil:
		return fmt.Errorf("it does not fail with %q", says)
	}
	return err
}

// series are the samples of each side, and how much of the machine others used
// meanwhile.
type series struct {
	samples   [][]sample // by side, then by round
	elsewhere float64    // share of all processors
}

// interleave runs the sides in turn, A B A B ..., so that whatever slows the
// machine down for a while slows both. Warm rounds come first and do not count.
func interleave(ctx context.Context, warm, rounds int, sides ...side) (series, error) {
	out := series{samples: make([][]sample, len(sides))}
	var watch load
	for i := range warm + rounds {
		if i == warm {
			watch = startLoad()
		}
		for j, s := range sides {
			one, err := s.run(ctx)
			if err != nil {
				return out, err
			}
			if i >= warm {
				out.samples[j] = append(out.samples[j], one)
			}
		}
	}
	out.elsewhere = watch.elsewhere(0)
	return out, nil
}
