package interop_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
)

// importToken stores a token with cryptsetup.
func (d *disk) importToken(id int, text string) result {
	d.Helper()
	return try(d, "token", "import", "--token-id", strconv.Itoa(id), "--token-replace", "--json-file", keyFile(d, text), d.path)
}

// exportToken returns a token as cryptsetup has it.
func (d *disk) exportToken(id int) any {
	d.Helper()
	return parse(d, []byte(cryptsetup(d, "token", "export", "--token-id", strconv.Itoa(id), d.path)))
}

func TestTokens(t *testing.T) {
	const (
		kms   = `{"type":"sideroKMS","keyslots":[],"UserData":{"sealedData":"a/b+c==","n":12345678901234567890}}`
		bound = `{"type":"cryptctl","keyslots":["0"],"note":"Grüße \"<&>\" 😀","list":[1,-2.5e3,true,null,{}]}`
	)
	t.Run("set here, exported and removed there", func(t *testing.T) {
		d := ours(t, plain(), "alpha")
		d.commit(luks.SetToken(0, json.RawMessage(kms)), luks.SetToken(31, json.RawMessage(bound)))
		d.accepted("we set two tokens")
		for id, text := range map[int]string{0: kms, 31: bound} {
			if got, want := d.exportToken(id), parse(t, []byte(text)); !reflect.DeepEqual(got, want) {
				t.Errorf("token %d: cryptsetup exports %v, want %v", id, got, want)
			}
		}
		cryptsetup(t, "token", "remove", "--token-id", "31", d.path)
		d.accepted("cryptsetup removed a token")
		if _, there := d.header().Token(31); there {
			t.Error("we still see token 31")
		}
	})
	t.Run("imported there, read, replaced and removed here", func(t *testing.T) {
		d := theirs(t, plain(), "alpha")
		for id, text := range map[int]string{7: kms, 31: bound} {
			if r := d.importToken(id, text); r.code != 0 {
				t.Fatalf("token import: %s", r.out)
			}
			token, _ := d.header().Token(id)
			if got, want := parse(t, token.JSON), parse(t, []byte(text)); !reflect.DeepEqual(got, want) {
				t.Errorf("token %d: we read %v, want %v", id, got, want)
			}
		}
		d.accepted("cryptsetup imported two tokens")
		d.commit(luks.SetToken(7, json.RawMessage(bound)), luks.RemoveToken(31))
		d.accepted("we replaced one and removed one")
		if got, want := d.exportToken(7), parse(t, []byte(bound)); !reflect.DeepEqual(got, want) {
			t.Errorf("cryptsetup exports %v, want %v", got, want)
		}
	})
	t.Run("assignments follow the keyslot", func(t *testing.T) {
		d := ours(t, plain(), "alpha")
		token := json.RawMessage(`{"type":"cryptctl","keyslots":["1"]}`)
		d.commit(luks.AddKeyslot(1, d.sealNew("bravo"), token))
		d.keys[1] = "bravo"
		d.accepted("we added a slot with its token")
		assigned := func(what string, want ...int) {
			t.Helper()
			if token, _ := d.header().Token(1); fmt.Sprint(token.Keyslots) != fmt.Sprint(want) {
				t.Fatalf("%s: the token names %v, want %v", what, token.Keyslots, want)
			}
		}
		d.changeThere(1, "charlie", false)
		assigned("cryptsetup changed the key", 1)
		d.replaceHere(1, "delta")
		assigned("we replaced the key", 1)
		d.killThere(1)
		assigned("cryptsetup killed the slot")
		d.addThere(1, "echo")
		d.commit(luks.SetToken(1, token))
		d.removeHere(1)
		assigned("we removed the slot")
	})
	t.Run("keyring token", func(t *testing.T) {
		d := ours(t, plain(), "alpha")
		cryptsetup(t, "token", "add", "--key-description", "cryptctl:test", "--token-id", "3", "--key-slot", "0", d.path)
		d.accepted("cryptsetup added a keyring token")
		token, _ := d.header().Token(3)
		if token.Type != "luks2-keyring" || fmt.Sprint(token.Keyslots) != "[0]" {
			t.Errorf("we read %s for %v", token.Type, token.Keyslots)
		}
		d.commit(luks.SetToken(3, json.RawMessage(`{"type":"luks2-keyring","keyslots":["0"],"key_description":"other"}`)))
		d.accepted("we replaced the keyring token")
		if out := cryptsetup(t, "luksDump", d.path); !strings.Contains(out, "luks2-keyring") {
			t.Errorf("luksDump does not list it:\n%s", out)
		}
	})
}

// TestOddTokens stores JSON at the edge of what parsers agree on. What our
// engine stores must never make the volume unreadable for cryptsetup.
func TestOddTokens(t *testing.T) {
	nested := func(levels int) string {
		return `{"type":"x","keyslots":[],"deep":` + strings.Repeat("[", levels) + strings.Repeat("]", levels) + `}`
	}
	member := func(value string) string { return `{"type":"x","keyslots":[],"v":` + value + `}` }
	odd := map[string]string{
		"empty names":         `{"type":"x","keyslots":[],"":{"":""}}`,
		"large numbers":       member(`[18446744073709551616,-9223372036854775809,1e400,0.1e-7,-0]`),
		"escapes":             member(`"\u0001\b\f\n\r\t\"\\\/\u007f\u2028\ud83d\ude00"`),
		"lone surrogate":      member(`"\ud800"`),
		"NUL in text":         member(`"a\u0000b"`),
		"NUL in a name":       `{"type":"x","keyslots":[],"a\u0000b":1,"a\u0000c":2}`,
		"NUL in the type":     `{"type":"x\u0000y","keyslots":[]}`,
		"exponents":           member(`[1E5,1e+5,1.0,-1]`),
		"spaces":              " {\n\t\"type\" : \"x\" ,\r\"keyslots\" : [ ] } ",
		"long type":           `{"type":"` + strings.Repeat("t", 300) + `","keyslots":[]}`,
		"type with a slash":   `{"type":"../x","keyslots":[]}`,
		"keyslot twice":       `{"type":"x","keyslots":["0","0"]}`,
		"names like metadata": `{"type":"x","keyslots":[],"tokens":{},"segments":{},"config":[]}`,
	}
	for levels := 26; levels <= 32; levels++ {
		odd[fmt.Sprintf("%d levels", levels)] = nested(levels)
	}
	for name, text := range odd {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := ours(t, plain(), "alpha")
			peer := d.copy(t)
			there := peer.importToken(5, text)
			if there.code == 0 {
				there = try(t, "luksDump", peer.path)
			}
			_, err := d.header().Commit(luks.SetToken(5, json.RawMessage(text)))
			t.Logf("we: %v; cryptsetup stores and reads it: %v", err, there.code == 0)
			if r := try(t, "luksDump", d.path); r.code != 0 {
				t.Fatalf("cryptsetup cannot read the volume any more: %s", r.out)
			}
			if !d.opensThere("alpha", 0) {
				t.Fatal("cryptsetup cannot open the volume any more")
			}
			// A change of theirs writes the whole document again.
			cryptsetup(t, "config", "--label", "again", d.path)
			if !d.opensHere("alpha", 0) {
				t.Fatal("we cannot open the volume any more")
			}
		})
	}
}

// TestFull fills a header to its limits: 32 keyslots with a token of 800 bytes
// each, and a JSON area without a byte left.
func TestFull(t *testing.T) {
	token := func(id, size int) json.RawMessage {
		const frame = `{"type":"cryptctl","keyslots":["%d"],"pad":"%s"}`
		return json.RawMessage(fmt.Sprintf(frame, id, strings.Repeat("p", size-len(fmt.Sprintf(frame, id, "")))))
	}
	full := func(t *testing.T) *disk {
		d := ours(t, plain(), "pass 0")
		changes := []luks.Change{luks.SetToken(0, token(0, 800))}
		for id := 1; id < luks.MaxSlots; id++ {
			pass := fmt.Sprintf("pass %d", id)
			changes = append(changes, luks.AddKeyslot(id, d.sealNew(pass), token(id, 800)))
			d.keys[id] = pass
		}
		d.commit(changes...)
		d.accepted("we filled 32 slots")
		return d
	}
	t.Run("32 slots with tokens", func(t *testing.T) {
		d := full(t)
		d.replaceHere(17, "new 17")
		d.changeThere(9, "new 9", true)
		d.changeThere(30, "new 30", false)
		d.removeHere(4)
		d.addThere(4, "again 4")
		if _, err := d.header().Commit(luks.AddKeyslot(luks.AnySlot, d.sealNew("33rd"), nil)); !errors.Is(err, luks.ErrSlotsFull) {
			t.Errorf("a 33rd keyslot: %v", err)
		}
		d.opens("after changes")
	})
	t.Run("not a byte left", func(t *testing.T) {
		d := ours(t, plain(), "alpha")
		used, total := d.header().JSONRoom()
		const name = `,"31":` // the first token needs no comma
		size := total - used - len(name) + 1
		_, err := d.header().Commit(luks.SetToken(31, token(0, size+1)))
		var room *luks.RoomError
		if !errors.As(err, &room) {
			t.Fatalf("one byte too many: %v", err)
		}
		d.commit(luks.SetToken(31, token(0, size)))
		if used, total := d.header().JSONRoom(); used != total {
			t.Fatalf("the JSON has %d of %d bytes; the test is wrong", used, total)
		}
		d.accepted("a full JSON area")
		// It can be worked on: cryptsetup exports what it read and takes the token out.
		out := filepath.Join(t.TempDir(), "token.json")
		cryptsetup(t, "token", "export", "--token-id", "31", "--json-file", out, d.path)
		if text, err := os.ReadFile(out); err != nil || len(strings.TrimSpace(string(text))) < size {
			t.Errorf("exported %d bytes of %d: %v", len(text), size, err)
		}
		cryptsetup(t, "token", "remove", "--token-id", "31", d.path)
		d.accepted("cryptsetup removed the token")
	})
}
