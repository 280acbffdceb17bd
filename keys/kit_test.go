package keys_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/keys/keystest"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/luks/lukstest"
	"github.com/cryptctl/cryptctl/secret"
)

// The volumes of the tests: a key of 32 bytes, so that an area has 128 KiB, and
// the cheapest derivation that the format knows. The tests are about slots.
const (
	keySize  = 32
	areaSize = 128 << 10
	volume   = "STATE"
	uuid     = "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b"
)

var cheap = kdf.Cost{Kind: kdf.PBKDF2, Hash: "sha256", Iterations: 1000}

// layout has room for that many areas.
func layout(metadata int64, areas int) luks.FormatOptions {
	return luks.FormatOptions{UUID: uuid, MetadataSize: metadata, DataOffset: 2*metadata + int64(areas)*areaSize}
}

func newDisk(l luks.FormatOptions) *lukstest.Disk { return lukstest.NewDisk(l.DataOffset + 4096) }

func phrase(s string) *secret.Bytes { return secret.Copy([]byte(s)) }

func static(slot int, word string) keys.Key {
	return keys.Key{Slot: slot, Kind: "static", Provider: keys.Static{Passphrase: phrase(word)}}
}

// statics gives the keys of the slots 0, 1, ... with these passphrases.
func statics(words ...string) (want []keys.Key) {
	for i, w := range words {
		want = append(want, static(i, w))
	}
	return want
}

func light(o keys.Options) keys.Options {
	o.Cost = cheap
	return o
}

// format makes a volume with these keys on a disk with room for 16 areas.
func format(t testing.TB, want ...keys.Key) *lukstest.Disk {
	t.Helper()
	return formatOn(t, layout(16<<10, 16), want...)
}

// formatOn makes a volume, or a copy of one that was made with the same keys:
// derivations are slow under the race detector.
func formatOn(t testing.TB, l luks.FormatOptions, want ...keys.Key) *lukstest.Disk {
	t.Helper()
	name, ok := nameOf(l, want)
	if d, done := formatted.Load(name); ok && done {
		return d.(*lukstest.Disk).Clone()
	}
	d := newDisk(l)
	key := luks.NewVolumeKey(keySize)
	defer key.Wipe()
	if _, err := keys.Format(t.Context(), d, volume, want, key, l, light(keys.Options{})); err != nil {
		t.Fatal(err)
	}
	if ok {
		formatted.Store(name, d.Clone())
	}
	return d.Clone()
}

var formatted sync.Map // by nameOf

// nameOf names a volume by its layout and its keys; not ok for keys of sealers
// that belong to one test.
func nameOf(l luks.FormatOptions, want []keys.Key) (name string, ok bool) {
	name = fmt.Sprintf("%+v", l)
	for _, k := range want {
		switch p := k.Provider.(type) {
		case keys.Static:
			name += fmt.Sprintf(" %d %q", k.Slot, p.Passphrase.Bytes())
		case *keystest.Sealer:
			if p != recordSealer {
				return "", false
			}
			name += fmt.Sprintf(" %d", k.Slot)
		default:
			return "", false
		}
	}
	return name, true
}

// foreign makes a volume as another tool does: no record, and one slot for each
// passphrase, the slots 0, 1, ....
func foreign(t testing.TB, l luks.FormatOptions, words ...string) *lukstest.Disk {
	t.Helper()
	d := newDisk(l)
	key := luks.NewVolumeKey(keySize)
	defer key.Wipe()
	var changes []luks.Change
	for i, w := range words {
		changes = append(changes, luks.AddKeyslot(i, seal(t, key, w), nil))
	}
	if _, err := luks.Format(d, key, l, changes...); err != nil {
		t.Fatal(err)
	}
	return d.Clone()
}

func seal(t testing.TB, key *luks.VolumeKey, word string) *luks.SealedKey {
	t.Helper()
	s, err := key.Seal(t.Context(), phrase(word), cheap)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t testing.TB, d luks.Device) *luks.Header {
	t.Helper()
	h, err := luks.Read(d)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// tamper changes a header as another tool does, that knows one passphrase.
func tamper(t testing.TB, d luks.Device, word string, changes func(h *luks.Header, key *luks.VolumeKey) []luks.Change) {
	t.Helper()
	h := read(t, d)
	key, err := h.Unlock(t.Context(), phrase(word), luks.UnlockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer key.Wipe()
	if _, err := h.Commit(changes(h, key)...); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, d luks.Device, opts keys.Options, want ...keys.Key) *keys.Session {
	t.Helper()
	s, err := keys.Open(t.Context(), read(t, d), volume, want, light(opts))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// reconcile opens, applies and closes, and gives the report.
func reconcile(t testing.TB, d luks.Device, opts keys.Options, want ...keys.Key) *keys.Report {
	t.Helper()
	s := open(t, d, opts, want...)
	defer s.Close()
	r, err := s.Apply(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, d); got.SeqID() != r.SeqID {
		t.Errorf("the report says seqid %d, the header %d", r.SeqID, got.SeqID())
	}
	sound(t, d)
	return r
}

// outcome is a report in short: "0 kept, 1 added".
func outcome(r *keys.Report) string {
	var all []string
	for _, s := range r.Slots {
		all = append(all, fmt.Sprintf("%d %s", s.Slot, s.Outcome))
	}
	return strings.Join(all, ", ")
}

// reason returns what the report says of a slot.
func reason(r *keys.Report, slot int) string {
	for _, s := range r.Slots {
		if s.Slot == slot {
			return s.Reason
		}
	}
	return ""
}

func wantOutcome(t testing.TB, r *keys.Report, want string) {
	t.Helper()
	if got := outcome(r); got != want {
		t.Errorf("outcome %q, want %q; report:\n%s", got, want, table(t, r))
	}
}

func wantReason(t testing.TB, r *keys.Report, slot int, want string) {
	t.Helper()
	if got := reason(r, slot); !strings.Contains(got, want) {
		t.Errorf("the reason for slot %d is %q, must contain %q", slot, got, want)
	}
}

func table(t testing.TB, r *keys.Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// opens lists which passphrases open the volume, and in which slots. A slot has
// one passphrase; those that are likely are tried first.
func opens(t testing.TB, d luks.Device, likely string, words ...string) string {
	t.Helper()
	h := read(t, d)
	found := map[string][]string{}
	for _, k := range h.Keyslots() {
		order := slices.Clone(words)
		slices.SortStableFunc(order, func(a, b string) int {
			pair := func(w string) int { return strings.Index(" "+likely+" ", fmt.Sprintf(" %s:%d ", w, k.ID)) }
			return pair(b) - pair(a)
		})
		for _, w := range order {
			if opensSlot(t, h, k.ID, w) {
				found[w] = append(found[w], fmt.Sprintf("%s:%d", w, k.ID))
				break
			}
		}
	}
	var all []string
	for _, w := range words {
		all = append(all, found[w]...)
	}
	return strings.Join(all, " ")
}

// opensSlot tries a passphrase on a slot, once for each material.
func opensSlot(t testing.TB, h *luks.Header, slot int, word string) bool {
	t.Helper()
	sum, err := h.KeyslotSum(slot)
	if err != nil {
		t.Error(err)
	}
	name := fmt.Sprintf("%x %s", sum, word)
	if known, ok := opened.Load(name); ok {
		return known.(bool)
	}
	key, err := h.Unlock(context.Background(), phrase(word), luks.UnlockOptions{Slots: []int{slot}})
	if err != nil && !errors.Is(err, luks.ErrWrongPassphrase) {
		t.Errorf("%s in slot %d: %v", word, slot, err)
	}
	key.Wipe()
	opened.Store(name, err == nil)
	return err == nil
}

var opened sync.Map // by slot material and passphrase

func wantOpens(t testing.TB, d luks.Device, want string, words ...string) {
	t.Helper()
	if got := opens(t, d, want, words...); got != want {
		t.Errorf("opens %q, want %q", got, want)
	}
}

// sound is how every test that writes ends: both copies good and equal, and no
// key material that no slot uses.
func sound(t testing.TB, d luks.Device) {
	t.Helper()
	h := read(t, d)
	for _, c := range h.Copies() {
		if c.State != luks.CopyGood {
			t.Errorf("the %s copy is %s: %v", c.Name, c.State, c.Err)
		}
	}
	if left, err := h.Leftovers(); err != nil || len(left) > 0 {
		t.Errorf("leftovers %v, %v", left, err)
	}
	for _, r := range h.Trust(kdf.Limits{}) {
		t.Errorf("refused: %v", r)
	}
}

// tokens lists the header's tokens: "0 sealed, 31 cryptctl".
func tokens(t testing.TB, d luks.Device) string {
	t.Helper()
	var all []string
	list := read(t, d).Tokens()
	slices.SortFunc(list, func(a, b luks.Token) int { return a.ID - b.ID })
	for _, k := range list {
		all = append(all, fmt.Sprintf("%d %s", k.ID, k.Type))
	}
	return strings.Join(all, ", ")
}

// writes counts what was written to a disk since it was made.
func writes(d *lukstest.Disk) (n int) {
	for _, op := range d.Ops() {
		if !op.Sync {
			n++
		}
	}
	return n
}

// counted counts the key derivations under a context.
func counted(ctx context.Context) (context.Context, *atomic.Int32) {
	n := new(atomic.Int32)
	return kdf.WithTrace(ctx, kdf.Trace{Start: func(kdf.Cost) { n.Add(1) }}), n
}

// faultAt fails the n-th write or sync, counted from 0, without effect.
func faultAt(n int, err error) lukstest.Fault { return lukstest.Fault{After: n, Err: err} }
