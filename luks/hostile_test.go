package luks_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
)

// What a hostile header may take of whoever looks at it or changes it: a second
// of processor time, and memory.
const (
	largeMetadata = 1 << 20
	hostileTime   = time.Second
	hostileMemory = 64 << 20
)

// large is a volume with 1 MiB metadata, so that there is room for nonsense. The
// format allows 4 MiB, which take the race detector too long.
var large = sync.OnceValues(func() ([]byte, error) {
	d := newDisk(4 << 20)
	key := luks.NewVolumeKey(64)
	defer key.Wipe()
	sealed, err := key.Seal(context.Background(), phrase("zero"), cheap)
	if err != nil {
		return nil, err
	}
	_, err = luks.Format(d, key, luks.FormatOptions{MetadataSize: largeMetadata, DataOffset: 3 << 20}, luks.AddKeyslot(0, sealed, nil))
	return d.data, err
})

// bombs are documents that are small on the disk and large, or slow, anywhere
// else.
func bombs() []fault {
	const room = largeMetadata - 8192
	// fill puts as many units as fit into an object of its own.
	fill := func(open, unit, last string) func(string) string {
		return replace(`"config":{`, `"config":{"bomb":`+open+strings.Repeat(unit, (room-len(open))/len(unit))+last+",")
	}
	numbered := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i+100)
		}
		return b.String()
	}
	references := func(n, slots int) func(string) string {
		slot := `"%d":{"type":"x","key_size":1,"area":{"type":"x","offset":"2097152","size":"4096"}},`
		return func(s string) string {
			s = strings.Replace(s, `"keyslots":{`, `"keyslots":{`+numbered(slots, slot), 1)
			last := fmt.Sprintf(`,"%d"`, slots+99)
			return strings.Replace(s, `"keyslots":["0"]`, `"keyslots":["0"`+strings.Repeat(last, n)+`]`, 1)
		}
	}
	long := strings.Repeat("1", room)
	return []fault{
		{name: "many numbers", text: fill("[", "0,", "0]")},
		{name: "many objects", text: fill("[", "{},", "{}]")},
		{name: "many arrays", text: fill("[", "[],", "[]]")},
		{name: "many texts", text: fill("[", `"",`, `""]`)},
		{name: "many duplicates", text: fill("{", `"a":0,`, `"a":0}`)},
		{name: "duplicates below a long name", text: fill(`{"`+long[:room/2]+`":{`, `"a":0,`, `"a":0}}`)},
		{name: "one long text", text: fill(`"`, "x", `"`)},
		{name: "one long number", text: fill("", "1", "1")},
		{name: "one long name", text: fill(`{"`, "x", `":0}`)},
		{name: "a text of control characters", text: fill(`"`, `\u0000`, `"`)},
		{name: "a long cipher", text: replace(`"iv_tweak":"0","encryption":"`, `"iv_tweak":"0","encryption":"`+long)},
		{name: "a long id", text: replace(`"tokens":{`, `"tokens":{"`+long+`":{}`)},
		{name: "a long reference", text: replace(`"segments":["0"]`, `"segments":["`+long+`"]`)},
		{name: "many slots and references", text: references(50000, 4500)},
		{name: "as many slots and references as are read", text: references(255, 255)},
		{name: "many segments", text: replace(`"segments":{`, `"segments":{`+numbered(8000, `"%d":`+segment("9437184", "512", "")+`,`))},
		{name: "arrays nested deep", text: replace(`"config":{`, `"config":{"bomb":`+strings.Repeat("[", room/2)+strings.Repeat("]", room/2)+`,`)},
		{name: "objects nested deep", text: replace(`"config":{`, `"config":{"bomb":`+strings.Repeat(`{"":`, room/5)+"0"+strings.Repeat("}", room/5)+`,`)},
		{name: "brackets that never close", text: func(string) string { return "{" + strings.Repeat(`"a":[`, room/5) }},
	}
}

// look does what needs no key and changes nothing.
func look(d *disk) {
	h, err := luks.Read(d)
	if err != nil {
		_ = err.Error()
		return
	}
	for _, r := range h.Trust(kdf.Limits{}) {
		_ = r.Error()
	}
	for _, k := range h.Keyslots()[:min(32, len(h.Keyslots()))] {
		// Only limits that keep the test short: what is above them is refused.
		limits := kdf.Limits{MaxMemoryKiB: 64, MaxWorkKiB: 1 << 10, MaxIterations: 1000}
		if _, err := h.Unlock(context.Background(), phrase("x"), luks.UnlockOptions{Slots: []int{k.ID}, Limits: limits}); err != nil {
			_ = err.Error()
		}
		h.KeyslotSum(k.ID)
	}
	h.WithKey(phrase(strings.Repeat("k", 64)))
	h.JSONRoom()
	h.Leftovers()
}

// change does what needs no key and writes.
func change(d *disk) {
	h, err := luks.Read(d)
	if err != nil {
		return
	}
	luks.PlanRestore(d, h)
	h.Commit(luks.SetPriority(0, luks.PriorityPrefer))
	luks.Repair(d)
	h.Erase()
}

// TestHostile has every faulty header looked at and changed under a limit of
// time and memory.
func TestHostile(t *testing.T) {
	big, err := large()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range bombs() {
		d := &disk{data: bytes.Clone(big)}
		d.setText(f.text(d.text(0)))
		bounded(t, f.name, func() { look(d) })
	}
	for _, f := range slices.Concat(invalidFaults(), untrustedFaults(), slotFaults()) {
		d := f.volume(t)
		bounded(t, f.name, func() { look(d); change(d) })
	}
}

func bounded(t *testing.T, name string, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := processorTime(t)
	f()
	took := processorTime(t) - begin
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; took > hostileTime || allocated > hostileMemory {
		t.Errorf("%s: took %v and allocated %d MiB, may take %v and %d MiB", name, took, allocated>>20, hostileTime, hostileMemory>>20)
	}
}

// processorTime is what this process has used; unlike the clock it does not
// count what else the machine does.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestHostileText: what a header says must not reach a terminal as it is, nor
// fill it.
func TestHostileText(t *testing.T) {
	long := strings.Repeat("A", 5000)
	for name, text := range map[string]func(string) string{
		"name of a keyslot":    replace(`"keyslots":{`, `"keyslots":{"\u001b[2J`+long+`":{},`),
		"reference":            replace(`"segments":["0"]`, `"segments":["\u001b[2J`+long+`"]`),
		"duplicate":            replace(`"config":{`, `"config":{"\u001b[2J`+long+`":0,"\u001b[2J`+long+`":0,`),
		"duplicate in a list":  replace(`"config":{`, `"config":{"\u001b[2J`+long+`":[{"a":0,"a":0}],`),
		"type of a keyslot":    replace(`"type":"luks2"`, `"type":"\u001b[2J`+long+`"`),
		"type of a segment":    replace(`"type":"crypt"`, `"type":"\u001b[2J`+long+`"`),
		"cipher of a segment":  replace(`"iv_tweak":"0","encryption":"`, `"iv_tweak":"0","encryption":"\u001b[2J`+long),
		"cipher of a keyslot":  replace(`258048","encryption":"`, `258048","encryption":"\u001b[2J`+long),
		"hash of a splitter":   replace(`"stripes":4000,"hash":"`, `"stripes":4000,"hash":"\u001b[2J`+long),
		"kind of a derivation": replace(`"kdf":{"type":"pbkdf2"`, `"kdf":{"type":"\u001b[2J`+long+`"`),
		"requirement":          replace(`"config":{`, `"config":{"requirements":{"mandatory":["\u001b[2J`+long+`"]},`),
		"flag of a segment":    replace(`"type":"crypt"`, `"type":"crypt","flags":["\u001b[2J`+long+`"]`),
	} {
		t.Run(name, func(t *testing.T) {
			f := fault{text: text}
			h, err := luks.Read(f.volume(t))
			var said []string
			if err != nil {
				said = append(said, err.Error())
			} else {
				for _, r := range h.Trust(kdf.Limits{}) {
					said = append(said, r.Error())
				}
				_, err := h.Unlock(t.Context(), phrase("zero"), luks.UnlockOptions{})
				said = append(said, fmt.Sprint(err))
			}
			if len(said) == 0 {
				t.Error("nothing is refused")
			}
			for _, s := range said {
				if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }) {
					t.Errorf("a control character in %.200q", s)
				}
				if len(s) > 2000 {
					t.Errorf("a message of %d bytes: %.200q", len(s), s)
				}
			}
		})
	}
}

// TestHostileNumber: a header with thousands of faults of one kind gives a list
// that can be read.
func TestHostileNumber(t *testing.T) {
	d := goldenDisk(t)
	d.setText(replace(`"config":{`, `"config":{"x":{`+strings.Repeat(`"a":0,`, 1000)+`"a":0},`)(d.text(0)))
	if n := len(find(mustRead(t, d).Trust(kdf.Limits{}), luks.DuplicateMember)); n == 0 || n > 16 {
		t.Errorf("1000 members that occur twice give %d refusals", n)
	}
}

// TestOwnLimits: what reading refuses must not be written either.
func TestOwnLimits(t *testing.T) {
	big, err := large()
	if err != nil {
		t.Fatal(err)
	}
	d := &disk{data: bytes.Clone(big)}
	h := mustRead(t, d)
	numbers := func(n int) json.RawMessage {
		return json.RawMessage(`{"type":"x","keyslots":[],"n":[0` + strings.Repeat(",0", n) + `]}`)
	}
	h = commit(t, h, luks.SetToken(0, numbers(9000)))
	was := bytes.Clone(d.data)
	if next, err := h.Commit(luks.SetToken(1, numbers(9000))); next != nil || err == nil || !strings.Contains(err.Error(), "more than 16384 values") {
		t.Errorf("too many values: %v", err)
	}
	ids := `"0"` + strings.Repeat(`,"0"`, 300)
	if next, err := h.Commit(luks.SetToken(1, json.RawMessage(`{"type":"x","keyslots":[`+ids+`]}`))); next != nil || !errors.Is(err, luks.BadStructure) {
		t.Errorf("too many references: %v", err)
	}
	if !bytes.Equal(d.data, was) {
		t.Error("the device was written")
	}
}
