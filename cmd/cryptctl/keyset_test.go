package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/secret"
)

const twoKeys = `machine:
  systemDiskEncryption:
    state:
      keys:
        - {slot: 0, static: {passphrase: sesame one}}
        - {slot: 1, static: {passphrase: sesame two}}
`

// late is a provider that does not heed its context: it answers when it is told.
type late struct {
	keys.Provider
	asked, now, done chan struct{}
}

func (l late) Recover(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
	close(l.asked)
	<-l.now
	defer close(l.done)
	return l.Provider.Recover(ctx, req, token)
}

// TestFreeWhileAsked: the first key that opens is enough, and the passphrases of
// the configuration are wiped while a provider that was left behind reads its
// own. That was a crash.
func TestFreeWhileAsked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "machine.yaml"), twoKeys)
	sparse(t, filepath.Join(dir, "vol.img"))
	cryptctl(t, dir, 0, cheaply("format", "vol.img", "--file", "machine.yaml", "--volume", "STATE")...)
	f, err := luks.OpenFile(filepath.Join(dir, "vol.img"), luks.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := luks.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	k := keySource{files: []string{filepath.Join(dir, "machine.yaml")}, volume: "STATE"}
	for range 20 {
		w, err := k.load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l := late{w.keys[1].Provider, make(chan struct{}), make(chan struct{}), make(chan struct{})}
		w.keys[1].Provider = l
		key, err := keys.Unlock(t.Context(), h, "STATE", w.keys, keys.Options{})
		<-l.asked
		close(l.now)
		w.free()
		if err != nil {
			t.Fatal(err)
		}
		key.Wipe()
		<-l.done
	}
}
