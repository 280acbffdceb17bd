// Command bench measures cryptctl against cryptsetup, and its use of a TPM against
// tpm2-tools and systemd, side by side on the same machine:
//
//	go run ./bench [-runs N] [-only CASE,...] [-json]
//
//	case ──> sides ──interleave──> samples ──> rows ──> table or JSON
//	          A: cryptctl            A B A B ...  one ratio for each pair
//	          B: the peer            after a warm-up
//
// A sample is a whole process, as a user meets it: its wall time, its CPU time
// and its peak resident memory. Nothing here is a test: a target that is not met
// is printed, and the exit code stays 0. bench/README.md says how to read it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	runs       int
	only       string
	cryptctl   string
	cryptsetup string
	dir        string
	json       bool
	derive     string
	empty      string
}

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 9, "`rounds` of cases that take around a second; slower ones get a third of it, faster ones ten times as many")
	flag.StringVar(&o.only, "only", "", "run these `cases` only, separated by commas: "+strings.Join(caseNames(), ", "))
	flag.StringVar(&o.cryptctl, "cryptctl", "", "`path` of cryptctl (default: built from this checkout)")
	flag.StringVar(&o.cryptsetup, "cryptsetup", "cryptsetup", "`path` of the peer")
	flag.StringVar(&o.dir, "dir", "", "`directory` for images (default: a temporary one)")
	flag.BoolVar(&o.json, "json", false, "print JSON, with every sample")
	flag.StringVar(&o.derive, "derive", "", "only run one argon2id derivation of `PASSES,KIB,LANES` and print the nanoseconds it took")
	flag.StringVar(&o.empty, "empty", "", "only serve an empty handler with the certificates of a key server's `DIRECTORY`, until a signal")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.derive != "" {
		return derive(ctx, o.derive)
	}
	if o.empty != "" {
		return serveEmpty(ctx, o.empty)
	}
	chosen, err := choose(o.only)
	if err != nil {
		return err
	}
	if flag.NArg() > 0 || o.runs < 1 {
		return errors.New("takes no arguments, and -runs must be at least 1; see -help")
	}
	b, err := setUp(ctx, o)
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	r := report{Date: time.Now().Format(time.DateOnly), Machine: machine(), Versions: b.versions(ctx)}
	for _, c := range chosen {
		fmt.Fprintf(os.Stderr, "bench: %s: %s\n", c.name, c.what)
		rows, err := c.run(b, ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		r.Rows = append(r.Rows, rows...)
	}
	r.Versions, r.Skipped = append(r.Versions, b.compared...), b.skipped
	r.Seconds = int(time.Since(b.begin).Seconds())
	if o.json {
		return r.writeJSON(os.Stdout)
	}
	return r.writeTable(os.Stdout)
}

// choose returns the cases that -only names, in the order they run.
func choose(only string) ([]benchCase, error) {
	if only == "" {
		return cases(), nil
	}
	names := strings.Split(only, ",")
	for _, n := range names {
		if !slices.Contains(caseNames(), n) {
			return nil, fmt.Errorf("-only: there is no case %q, but %s", n, strings.Join(caseNames(), ", "))
		}
	}
	return slices.DeleteFunc(cases(), func(c benchCase) bool { return !slices.Contains(names, c.name) }), nil
}

// bench is what the cases share.
type bench struct {
	runs       int
	dir        string // of images and key files; removed at the end
	cryptctl   string
	cryptsetup string
	self       string // this program, for derivations in a process of their own
	begin      time.Time
	compared   []string // versions of peers that only some cases have
	skipped    []string // what was left out, and why
}

// setUp finds the peer, builds cryptctl unless it is given, and makes the
// directory for images.
func setUp(ctx context.Context, o options) (b *bench, err error) {
	b = &bench{runs: o.runs, begin: time.Now()}
	if b.cryptsetup, err = find(o.cryptsetup); err != nil {
		return nil, fmt.Errorf("cryptsetup, the peer, is not installed: %w (Debian: apt install cryptsetup-bin)", err)
	}
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp(o.dir, "cryptctl-bench-"); err != nil {
		return nil, err
	}
	if o.cryptctl != "" {
		b.cryptctl, err = filepath.Abs(o.cryptctl)
		if err == nil {
			_, err = os.Stat(b.cryptctl)
		}
	} else {
		b.cryptctl = filepath.Join(b.dir, "cryptctl")
		err = build(ctx, b.cryptctl)
	}
	if err == nil {
		err = b.writeKeys()
	}
	if err != nil {
		os.RemoveAll(b.dir)
		return nil, err
	}
	return b, nil
}

// find looks for a program in PATH and where Debian keeps those of root.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil && !strings.Contains(name, "/") {
		if sbin, err := exec.LookPath("/usr/sbin/" + name); err == nil {
			return sbin, nil
		}
	}
	return path, err
}

// build makes cryptctl as a release is made: static.
func build(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=auto", "-o", path, "github.com/cryptctl/cryptctl/cmd/cryptctl")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build cryptctl: %w\n%s", err, out)
	}
	return nil
}
