package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Targets with a TPM.
const (
	targetUnseal = 0.5 // of what the peers take for the same steps
	targetUnlock = 0.1 // of what a passphrase takes
)

// sealed measures unsealing, and what a volume with a sealed key takes to unlock.
// All sides use the same TPM in the same way; peers that are not installed are
// left out.
func (b *bench) sealed(ctx context.Context) (rows []row, err error) {
	program, err := exec.LookPath("swtpm")
	if err != nil {
		b.skip("tpm: swtpm is not installed, so no row (Debian: apt install swtpm)")
		return nil, nil
	}
	b.alsoCompared(firstLine(ctx, ", Copyright", program, "--version"))
	for _, root := range []struct {
		name string
		keep bool
	}{{"SRK made", false}, {"SRK kept", true}} {
		t, err := startTPM(ctx, program, root.keep)
		if err != nil {
			return nil, err
		}
		of, err := b.unsealing(ctx, t, root.name, root.keep)
		if err == nil && root.keep {
			var more []row
			more, err = b.unlocking(ctx, t)
			of = append(of, more...)
		}
		t.stop()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", root.name, err)
		}
		rows = append(rows, of...)
	}
	return rows, nil
}

// unsealPeer is a program that unseals, and what it is to be compared with.
type unsealPeer struct {
	name  string
	start []string // what it takes to start one of its processes; nil: many
	peer  func(socket string) side
	ours  func(socket string) side
}

// unsealing compares one unseal: signed PCR 11, and PCR 7.
func (b *bench) unsealing(ctx context.Context, t *softTPM, root string, keep bool) (rows []row, err error) {
	f, err := b.sealFor(ctx, t)
	if err != nil {
		return nil, err
	}
	for _, install := range []func(context.Context, *sealFixture, bool) (unsealPeer, error){b.tpm2Tools, b.systemdCreds, b.systemdCryptsetup} {
		p, err := install(ctx, f, keep)
		var missing leftOut
		if errors.As(err, &missing) {
			b.skip(fmt.Sprintf("tpm, %s: %s", root, missing.why))
			continue
		}
		if err != nil {
			return nil, err
		}
		of, err := b.compareUnseal(ctx, t, "unseal, "+root, p)
		if err != nil {
			return nil, err
		}
		rows = append(rows, of...)
	}
	return rows, nil
}

// compareUnseal runs a peer against ours, and both once more to count what they
// ask of the TPM.
func (b *bench) compareUnseal(ctx context.Context, t *softTPM, name string, p unsealPeer) (rows []row, err error) {
	sides := []side{p.ours(t.socket()), p.peer(t.socket())}
	if p.start != nil {
		sides = append(sides, command(b.cryptctl, "version"), command(p.start...))
	}
	s, err := t.interleave(ctx, 2, b.fast(), sides...)
	if err != nil {
		return nil, err
	}
	rows = []row{s.wall(name+" / "+p.name, 0, 1, targetUnseal)}
	if p.start != nil {
		rows = append(rows, s.wall(name+" / "+p.name+", net of start", 0, 1, targetUnseal).without(s, 2, 3))
	}
	counted, err := t.count(ctx, name+" / "+p.name+", TPM commands", p.ours, p.peer)
	return append(rows, counted), err
}

// unlocking compares unlocking a volume whose only key the TPM has with one whose
// only key is a passphrase at default cost: ours, and cryptsetup's.
func (b *bench) unlocking(ctx context.Context, t *softTPM) ([]row, error) {
	image, slow, peer := b.path("sealed"), b.path("passphrase"), b.path("theirs")
	config := b.path("sealed.yaml")
	text := "version: v1alpha1\nmachine:\n  systemDiskEncryption:\n    state:\n      provider: luks2\n      keys:\n        - slot: 0\n          tpm: {}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	keys := []string{"--file", config, "--volume", volume, "--tpm", ours(t.socket())}
	format := command(append([]string{b.cryptctl, "format", image}, keys...)...)
	format.before = func() error { return blank(image) }
	passphrase, err := b.ourFormat(slow, 1)
	if err != nil {
		return nil, err
	}
	for _, s := range []side{format, passphrase, b.peerFormat(peer, 1)} {
		if _, err := s.run(ctx); err != nil {
			return nil, err
		}
	}
	open := command(append([]string{b.cryptctl, "open", "--test", image}, keys...)...)
	s, err := t.interleave(ctx, 1, b.slow(), open, b.ourOpen(slow), b.peerOpen(peer))
	if err != nil {
		return nil, err
	}
	a, c := s.wall("open, TPM key / passphrase, default cost", 0, 1, targetUnlock), s.wall("open, TPM key / cryptsetup's default cost", 0, 2, targetUnlock)
	c.Note, err = chosenCosts(slow, peer)
	return []row{a, c}, err
}

// leftOut says why a peer is not there.
type leftOut struct{ why string }

func (l leftOut) Error() string { return l.why }

// skip notes what was left out, at once and below the table.
func (b *bench) skip(line string) {
	fmt.Fprintln(os.Stderr, "bench:", line)
	b.skipped = append(b.skipped, line)
}

// firstLine is what a program says of itself, up to some words.
func firstLine(ctx context.Context, upTo string, argv ...string) string {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
	if err != nil {
		return argv[0] + ": " + err.Error()
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	line, _, _ = strings.Cut(line, upTo)
	return strings.TrimSpace(line)
}

// alsoCompared adds to the versions that were compared, once.
func (b *bench) alsoCompared(version string) {
	if !slices.Contains(b.compared, version) {
		b.compared = append(b.compared, version)
	}
}
