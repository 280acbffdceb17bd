package volume_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/probe/marker"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/volume"
	"github.com/cryptctl/cryptctl/volume/volumetest"
)

const (
	mib = 1 << 20
	// label is that of the volume of most tests, and of its partition, which has
	// room for a header and a little more.
	label = "STATE"
	size  = 17 * mib
	uuid  = "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b"
)

// cheap is the cheapest derivation that the format knows.
var cheap = kdf.Cost{Kind: kdf.PBKDF2, Hash: "sha256", Iterations: 1000}

// machine is a new machine with one empty partition.
func machine(t *testing.T) (s *volumetest.System, device string) {
	t.Helper()
	s = volumetest.New(t, t.TempDir())
	return s, s.AddPartition(label, size)
}

// statics gives the keys of the slots 0, 1, ... with these passphrases.
func statics(words ...string) (want []keys.Key) {
	for i, w := range words {
		want = append(want, keys.Key{Slot: i, Kind: "static", Provider: keys.Static{Passphrase: secret.Copy([]byte(w))}})
	}
	return want
}

// encrypted is a volume that may be formatted, with these passphrases.
func encrypted(words ...string) volume.Spec {
	return volume.Spec{Name: label, Encryption: &volume.Encryption{Keys: statics(words...)}, MayFormat: true}
}

// plain is a volume that may be formatted and is not encrypted.
func plain(filesystem string) volume.Spec {
	return volume.Spec{Name: label, Filesystem: filesystem, MayFormat: true}
}

func tryOpen(t *testing.T, s *volumetest.System, device string, spec volume.Spec) (*volume.Volume, error) {
	t.Helper()
	o := &volume.Opener{System: s, Keys: keys.Options{Cost: cheap}}
	return o.Open(t.Context(), device, spec)
}

func open(t *testing.T, s *volumetest.System, device string, spec volume.Spec) *volume.Volume {
	t.Helper()
	v, err := tryOpen(t, s, device, spec)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// made formats a volume, makes its file system and closes it.
func made(t *testing.T, s *volumetest.System, device string, spec volume.Spec) volume.Identity {
	t.Helper()
	v := open(t, s, device, spec)
	shut(t, v)
	return *v.Identity
}

func shut(t *testing.T, v *volume.Volume) {
	t.Helper()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func mount(t *testing.T, v *volume.Volume, dir string) {
	t.Helper()
	if err := v.Mount(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
}

func reconcile(t *testing.T, v *volume.Volume) *keys.Report {
	t.Helper()
	r, err := v.Reconcile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// calls are the calls of some methods, or all, one on a line; of directories the
// last part.
func calls(s *volumetest.System, methods ...string) string {
	var b strings.Builder
	for _, c := range s.Calls(methods...) {
		b.WriteString(c.Method)
		for _, a := range c.Args {
			b.WriteString(" " + filepath.Base(a))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func wantCalls(t *testing.T, s *volumetest.System, methods []string, want ...string) {
	t.Helper()
	if got, want := calls(s, methods...), strings.Join(append(want, ""), "\n"); got != want {
		t.Errorf("calls:\n%swant:\n%s", got, want)
	}
}

func sum(t *testing.T, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// refused opens what must be refused: for that reason, with not a byte changed,
// and nothing left mapped.
func refused(t *testing.T, s *volumetest.System, device string, spec volume.Spec, reason error) error {
	t.Helper()
	before := sum(t, device)
	v, err := tryOpen(t, s, device, spec)
	if v != nil || err == nil || reason != nil && !errors.Is(err, reason) {
		t.Errorf("opened %v with error %v, want the error %v", v, err, reason)
	}
	if sum(t, device) != before {
		t.Error("the partition was changed")
	}
	if n, m := len(s.Calls("Activate")), len(s.Calls("Deactivate")); n != m {
		t.Errorf("mapped %d times, and closed %d times", n, m)
	}
	if got := calls(s, "Mkfs"); got != "" {
		t.Errorf("a file system was made: %s", got)
	}
	return err
}

// write puts bytes onto a device.
func write(t *testing.T, device string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func header(t *testing.T, device string) *luks.Header {
	t.Helper()
	f, err := luks.OpenFile(device, luks.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	h, err := luks.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// slots are the slots of a volume that a passphrase opens each: "0 one, 1 two".
func slots(t *testing.T, device string, words ...string) string {
	t.Helper()
	h := header(t, device)
	var all []string
	for _, k := range h.Keyslots() {
		opens := string(rune('0'+k.ID)) + " ?"
		for _, w := range words {
			key, err := h.Unlock(t.Context(), secret.Copy([]byte(w)), luks.UnlockOptions{Slots: []int{k.ID}})
			if err == nil {
				opens = string(rune('0'+k.ID)) + " " + w
			}
			key.Wipe()
		}
		all = append(all, opens)
	}
	return strings.Join(all, ", ")
}

// luksImage makes a LUKS2 volume that no package volume made, without slots but
// one for each passphrase.
func luksImage(t *testing.T, device string, layout luks.FormatOptions, words ...string) {
	t.Helper()
	f, err := luks.OpenFile(device, luks.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	key := luks.NewVolumeKey(luks.DefaultVolumeKeySize)
	defer key.Wipe()
	if _, err := keys.Format(t.Context(), f, label, statics(words...), key, layout, keys.Options{Cost: cheap}); err != nil {
		t.Fatal(err)
	}
}

// head returns the part of an image in which a header is.
func head(t *testing.T, device string) []byte {
	t.Helper()
	b, err := os.ReadFile(device)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b[:luks.DefaultDataOffset])
}

// unfinished is the note of a format that was cut off.
func unfinished() []byte { return marker.Marker{UUID: uuid, Reach: luks.DefaultDataOffset}.Encode() }
