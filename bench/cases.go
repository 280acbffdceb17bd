package main

import (
	"context"
	"fmt"
	"os"
)

// benchCase is one question.
type benchCase struct {
	name string
	what string
	run  func(*bench, context.Context) ([]row, error)
}

func cases() []benchCase {
	return []benchCase{
		{"header", "read and check a header", (*bench).header},
		{"open", "open with a passphrase, and the derivation alone", (*bench).open},
		{"sync", "sync of 8 slots that are as they should be", (*bench).sync},
		{"format", "format with 4 keys", (*bench).format},
		{"memory", "peak resident memory", (*bench).memory},
		{"tpm", "unseal, and unlock a volume with a sealed key", (*bench).sealed},
		{"kms", "a key server under load, beside an empty handler", (*bench).keyServer},
	}
}

func caseNames() (names []string) {
	for _, c := range cases() {
		names = append(names, c.name)
	}
	return names
}

// Rounds of commands of milliseconds, of about a second, and of many seconds.
func (b *bench) fast() int   { return 10 * b.runs }
func (b *bench) normal() int { return b.runs }
func (b *bench) slow() int   { return (b.runs + 2) / 3 }

// Targets, as ours over the peer's.
const (
	targetHeader = 0.5 // a header is read and checked in half of luksDump's time
	targetFormat = 0.5
	targetLanes  = 1.0 // argon2id with 2 lanes takes no longer than libargon2's
	targetMemory = 1.2 // of what one derivation needs
)

// header compares reading and checking, on a header that the peer made and on a
// full one of ours. What starting a process takes is shown, and
// in rows of their own taken off.
func (b *bench) header(ctx context.Context) (rows []row, err error) {
	small, err := b.peerVolume(ctx, "small", 8, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
	if err != nil {
		return nil, err
	}
	full, err := b.fullVolume(ctx, "full")
	if err != nil {
		return nil, err
	}
	for i, h := range []struct{ image, name string }{{small, "16K, 8 slots"}, {full, "64K, 32 slots, tokens"}} {
		s, err := interleave(ctx, 2, b.fast(),
			command(b.cryptctl, "version"), command(b.cryptsetup, "--version"),
			command(b.cryptctl, "check", h.image), command(b.cryptctl, "inspect", "--json", h.image),
			command(b.cryptsetup, "luksDump", h.image), command(b.cryptsetup, "luksDump", "--disable-locks", h.image))
		if err != nil {
			return nil, err
		}
		if i == 0 {
			rows = append(rows, s.wall("start: version / --version", 0, 1, 0))
		}
		rows = append(rows,
			s.wall("check, "+h.name, 2, 4, targetHeader),
			s.wall("check, "+h.name+", --disable-locks", 2, 5, targetHeader),
			s.wall("check, "+h.name+", net of start", 2, 4, targetHeader).without(s, 0, 1),
			s.wall("inspect, "+h.name, 3, 4, targetHeader),
			s.wall("inspect, "+h.name+", net of start", 3, 4, targetHeader).without(s, 0, 1))
	}
	return rows, nil
}

// open compares opening the same header, and argon2id alone: ours in a process
// that does nothing else, the peer's as what a costly slot takes beyond the
// cheapest one.
func (b *bench) open(ctx context.Context) (rows []row, err error) {
	cheapest := cost{4, 32, 1}
	cheap, err := b.peerVolume(ctx, "cheap", 1, cheapest.flags()...)
	if err != nil {
		return nil, err
	}
	s, err := interleave(ctx, 2, b.fast(), b.ourOpen(cheap), b.peerOpen(cheap))
	if err != nil {
		return nil, err
	}
	rows = append(rows, s.wall("open, cheapest slot (32 KiB)", 0, 1, 0))
	for _, c := range []cost{{4, 64 << 10, 1}, {4, 64 << 10, 2}, {4, 1 << 20, 1}, {4, 1 << 20, 2}} {
		warm, rounds, target := 1, b.normal(), 0.0
		if c.kib >= 1<<20 {
			warm, rounds = 0, b.slow()
		}
		if c.lanes > 1 {
			target = targetLanes
		}
		image, err := b.peerVolume(ctx, "costly", 1, c.flags()...)
		if err != nil {
			return nil, err
		}
		alone := command(b.self, "-derive", fmt.Sprintf("%d,%d,%d", c.passes, c.kib, c.lanes))
		alone.selfTimed = true
		s, err := interleave(ctx, warm, rounds, b.ourOpen(image), b.peerOpen(image), alone, b.peerOpen(cheap))
		if err != nil {
			return nil, err
		}
		rows = append(rows, s.wall("open, "+c.String(), 0, 1, target),
			s.wall("argon2id alone, "+c.String(), 2, 1, target).without(s, -1, 3))
	}
	return rows, nil
}

// sync compares proving 8 passphrases, which takes 8 derivations on both sides.
func (b *bench) sync(ctx context.Context) ([]row, error) {
	c, image := cost{4, 64 << 10, 2}, b.path("sync")
	format, err := b.ourFormat(image, maxKeys, c.flags()...)
	if err != nil {
		return nil, err
	}
	if _, err := format.run(ctx); err != nil {
		return nil, err
	}
	config, err := b.config(maxKeys)
	if err != nil {
		return nil, err
	}
	keys := []string{"--file", config, "--volume", volume}
	// A plan with changes pending would end this.
	if _, err := command(append([]string{b.cryptctl, "plan", "--exit-code", image}, keys...)...).run(ctx); err != nil {
		return nil, err
	}
	var theirs side
	for i := range maxKeys {
		theirs.steps = append(theirs.steps, []string{
			b.cryptsetup, "open", "--test-passphrase", "--key-file", b.keyFile(i), "--key-slot", fmt.Sprint(i), image,
		})
	}
	s, err := interleave(ctx, 1, b.slow(), command(append([]string{b.cryptctl, "sync", image}, keys...)...), theirs)
	if err != nil {
		return nil, err
	}
	return []row{s.wall(fmt.Sprintf("sync, 8 slots of %s / 8 opens", c), 0, 1, 0)}, nil
}

// format compares making a volume with 4 keys: at one forced cost, and at what
// each side finds right for this machine.
func (b *bench) format(ctx context.Context) (rows []row, err error) {
	forced := cost{4, 64 << 10, 2}
	for _, v := range []struct {
		name   string
		flags  []string
		warm   int
		rounds int
	}{
		{"format with 4 keys, forced to " + forced.String(), forced.flags(), 1, b.normal()},
		{"format with 4 keys, default cost", nil, 0, b.slow()},
	} {
		ours, theirs := b.path("ours"), b.path("theirs")
		a, err := b.ourFormat(ours, 4, v.flags...)
		if err != nil {
			return nil, err
		}
		s, err := interleave(ctx, v.warm, v.rounds, a, b.peerFormat(theirs, 4, v.flags...))
		if err != nil {
			return nil, err
		}
		r := s.wall(v.name, 0, 1, targetFormat)
		if v.flags == nil {
			if r.Note, err = chosenCosts(ours, theirs); err != nil {
				return nil, err
			}
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func chosenCosts(ours, theirs string) (string, error) {
	a, err := costs(ours)
	if err != nil {
		return "", err
	}
	b, err := costs(theirs)
	return fmt.Sprintf("cost chosen, ours: %s; theirs (in the last round): %s", a, b), err
}

// memory compares peak resident memory: with what one derivation needs, and with
// the peer's.
func (b *bench) memory(ctx context.Context) (rows []row, err error) {
	c := cost{4, 512 << 10, 2}
	image, ours, theirs := b.path("memory"), b.path("ours"), b.path("theirs")
	base, err := b.ourFormat(image, 1, c.flags()...)
	if err != nil {
		return nil, err
	}
	if _, err := base.run(ctx); err != nil {
		return nil, err
	}
	format, err := b.ourFormat(ours, 4, c.flags()...)
	if err != nil {
		return nil, err
	}
	add := command(append([]string{b.cryptctl, "key", "add", "--key-file", b.keyFile(0), "--new-key-file", b.keyFile(1), ours}, c.flags()...)...)
	add.before = func() error { return duplicate(image, ours) }
	peerAdd := command(append([]string{b.cryptsetup, "luksAddKey", "-q", "--key-file", b.keyFile(0), theirs, b.keyFile(1)}, c.flags()...)...)
	peerAdd.before = func() error { return duplicate(image, theirs) }
	for _, v := range []struct {
		name         string
		ours, theirs side
	}{
		{"open (1 derivation)", b.ourOpen(image), b.peerOpen(image)},
		{"key add (2)", add, peerAdd},
		{"format with 4 keys (4)", format, b.peerFormat(theirs, 4, c.flags()...)},
	} {
		s, err := interleave(ctx, 0, min(2, b.slow()), v.ours, v.theirs)
		if err != nil {
			return nil, err
		}
		rows = append(rows,
			s.memory("memory of "+v.name+" / its 512 MiB", 0, 1, targetMemory).against(int64(c.kib)<<10),
			s.memory("memory of "+v.name+" / cryptsetup", 0, 1, 0))
	}
	return rows, os.Remove(image)
}
