package luks_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cryptctl/cryptctl/luks"
)

// strange is what another tool may have put into any object.
const strange = `"x-note":{"b":[1.50,-0,1e5,1E+400,123456789012345678901234567890,0.1],"a":null,"\u00e9 <&> \"\\/":[true,false,{}],"":""},`

// TestUnknownMembersSurvive commits a change of one member: all else must come
// back as it was, character for character.
func TestUnknownMembersSurvive(t *testing.T) {
	d, _ := newVolume(t)
	text := d.text(0)
	for _, open := range []string{
		`{"keyslots":`, `"1":{"type":"luks2"`, `"af":{`, `"area":{`, `"kdf":{`, `"1":{"type":"test"`, `"0":{"type":"crypt"`,
		`"0":{"type":"pbkdf2"`, `"config":{`,
	} {
		brace := strings.Index(open, "{") + 1
		before := strings.Count(text, open)
		text = strings.Replace(text, open, open[:brace]+strange+open[brace:], 1)
		if before == 0 {
			t.Fatalf("no %s in the document", open)
		}
	}
	d.setText(text)
	h := mustRead(t, d)
	// As cryptsetup writes it: compact, and without escapes that need not be.
	was := strings.NewReplacer(`\u00e9`, "é").Replace(text)
	if diff := cmp.Diff(was, string(h.JSON())); diff != "" {
		t.Fatalf("read and encoded again (-was +is):\n%s", diff)
	}

	commit(t, h, luks.SetPriority(0, luks.PriorityPrefer))
	was = strings.Replace(was, `}},"1":{"x-note"`, `},"priority":2},"1":{"x-note"`, 1)
	for _, off := range d.offsets() {
		if diff := cmp.Diff(was, d.text(off)); diff != "" {
			t.Errorf("copy at %d (-want +got):\n%s", off, diff)
		}
	}
	if got := opens(t, sound(t, d), "zero", "one"); got != "zero:0 one:1" {
		t.Errorf("opens %q", got)
	}

	note, ok := h.Config("x-note")
	if want := strings.TrimSuffix(strings.TrimPrefix(strings.ReplaceAll(strange, `\u00e9`, "é"), `"x-note":`), ","); !ok || string(note) != want {
		t.Errorf("Config gives %s, want %s", note, want)
	}
	if _, ok := h.Config("y-note"); ok {
		t.Error("Config gives a member that is not there")
	}
}

// TestKeyslotOrder: the order of the document is the trial order, whatever the
// ids, and no change reorders it.
func TestKeyslotOrder(t *testing.T) {
	d := newDisk(3 << 20)
	h := format(t, d, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: 2 << 20}, "zero", "one")
	key := unlock(t, h, "one")
	commit(t, h, luks.AddKeyslot(7, seal(t, key, "seven"), nil))
	order := func() (ids []int) {
		for _, k := range mustRead(t, d).Keyslots() {
			ids = append(ids, k.ID)
		}
		return ids
	}
	// 0, 1, 7 -> 7, 0, 1
	slots := document(t, d.text(0))["keyslots"].(map[string]any)
	var list []string
	for _, id := range []string{"7", "0", "1"} {
		one, err := json.Marshal(slots[id])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, strconv.Quote(id)+":"+string(one))
	}
	text := d.text(0)
	end := strings.Index(text, `,"tokens":`)
	d.setText(`{"keyslots":{` + strings.Join(list, ",") + "}" + text[end:])
	if got := order(); !slices.Equal(got, []int{7, 0, 1}) {
		t.Fatalf("order %v", got)
	}

	h = mustRead(t, d)
	h = commit(t, h, luks.ReplaceKeyslot(0, seal(t, key, "new zero"), nil))
	if got := order(); !slices.Equal(got, []int{7, 0, 1}) {
		t.Errorf("order after replacing slot 0: %v", got)
	}
	h = commit(t, h, luks.SetPriority(1, luks.PriorityPrefer), luks.RemoveKeyslot(7))
	if got := order(); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("order after removing slot 7: %v", got)
	}
	commit(t, h, luks.AddKeyslot(luks.AnySlot, seal(t, key, "two"), nil))
	if got := order(); !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("order after adding: %v", got)
	}
	if got := opens(t, sound(t, d), "zero", "new zero", "one", "seven", "two"); got != "new zero:0 one:1 two:2" {
		t.Errorf("opens %q", got)
	}
}

// value generates a JSON text of some depth.
func value(depth int) *rapid.Generator[string] {
	text := rapid.Custom(func(t *rapid.T) string {
		out, err := json.Marshal(rapid.String().Draw(t, "text"))
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	})
	number := rapid.StringMatching(`-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?`)
	leaf := rapid.OneOf(text, number, rapid.SampledFrom([]string{"true", "false", "null", `"\ud800"`, `"\/"`, "{}", "[]"}))
	if depth == 0 {
		return leaf
	}
	return rapid.OneOf(leaf,
		rapid.Custom(func(t *rapid.T) string {
			return "[" + strings.Join(rapid.SliceOfN(value(depth-1), 0, 4).Draw(t, "array"), " ,") + "]"
		}),
		rapid.Custom(func(t *rapid.T) string {
			var members []string
			for i, v := range rapid.SliceOfN(value(depth-1), 0, 4).Draw(t, "object") {
				members = append(members, fmt.Sprintf(`"%d%s : %s`, i, text.Draw(t, "name")[1:], v))
			}
			return "{\n" + strings.Join(members, ",\t") + " }"
		}))
}

// TestDocumentFixpoint: what is read says the same as what Go's own reader makes
// of it, and what is encoded once is encoded so for ever.
func TestDocumentFixpoint(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		d := goldenDisk(t)
		was := replace(`"config":{`, `"config":{"any":`+value(4).Draw(r, "value")+",")(d.text(0))
		if len(was) > 12000 {
			r.Skip("does not fit")
		}
		d.setText(was)
		h, err := luks.Read(d)
		if err != nil {
			r.Fatal(err)
		}
		once := string(h.JSON())
		if diff := cmp.Diff(document(t, was), document(t, once)); diff != "" {
			r.Fatalf("another meaning (-was +is):\n%s", diff)
		}
		d.setText(once)
		if h, err = luks.Read(d); err != nil {
			r.Fatal(err)
		}
		if twice := string(h.JSON()); twice != once {
			r.Fatalf("encoded twice:\n%s\n%s", once, twice)
		}
	})
}
