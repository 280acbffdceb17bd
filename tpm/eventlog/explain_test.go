package eventlog_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// recordOf makes the record of a machine whose PCRs are what the log says.
func recordOf(t testing.TB, w *writer, indexes ...int) *eventlog.Record {
	t.Helper()
	l := w.parse(t)
	all, err := l.Replay(pcr.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	values := map[int][]byte{}
	for _, index := range indexes {
		values[index] = all[index]
	}
	r, err := l.Record(pcr.SHA256, values)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// throughJSON is a record that was stored and read again.
func throughJSON(t testing.TB, r *eventlog.Record) *eventlog.Record {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	again := new(eventlog.Record)
	if err := json.Unmarshal(text, again); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, again); d != "" {
		t.Fatal(d)
	}
	return again
}

func explain(t testing.TB, before, after *eventlog.Record) string {
	t.Helper()
	movements, err := eventlog.Explain(throughJSON(t, before), throughJSON(t, after))
	if err != nil {
		t.Fatal(err)
	}
	lines := make([]string, len(movements))
	for i, m := range movements {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n")
}

// TestExplain: the reasons for which keys stop to open.
func TestExplain(t *testing.T) {
	t.Parallel()
	before := func() *eventlog.Record { return recordOf(t, machine(77, "old", "quiet"), 4, 7, 11) }
	tests := []struct {
		name  string
		after *eventlog.Record
		want  []string
	}{
		{"nothing", before(), nil},
		{"revocations", recordOf(t, machine(371, "old", "quiet"), 4, 7, 11), []string{
			"PCR 7 (Secure Boot state and keys): variable dbx was 77 hashes, is 371 hashes",
		}},
		{"boot loader", recordOf(t, machine(77, "new", "quiet"), 4, 7, 11), []string{
			`PCR 4 (boot loader code): application \EFI\BOOT\BOOTX64.EFI has another content`,
		}},
		{"command line, and boot loader", recordOf(t, machine(77, "new", "debug"), 4, 7, 11), []string{
			`PCR 4 (boot loader code): application \EFI\BOOT\BOOTX64.EFI has another content`,
			"PCR 11 (unified kernel image and boot phases): section .cmdline of the unified kernel image has another content",
		}},
		{"section gone", recordOf(t, machine(77, "old", ""), 4, 7, 11), []string{
			"PCR 11 (unified kernel image and boot phases): section .cmdline of the unified kernel image is gone",
		}},
		{"event added", recordOf(t, machine(77, "old", "quiet").data(7, eventlog.EvEFIAction, []byte("DMA Protection Disabled")), 4, 7, 11), []string{
			`PCR 7 (Secure Boot state and keys): action "DMA Protection Disabled" is new`,
		}},
		{"not asked", recordOf(t, machine(1, "new", "debug"), 4), []string{
			`PCR 4 (boot loader code): application \EFI\BOOT\BOOTX64.EFI has another content`,
			"PCR 7 (Secure Boot state and keys): its value is not known now",
			"PCR 11 (unified kernel image and boot phases): its value is not known now",
		}},
	}
	for _, test := range tests {
		if d := cmp.Diff(strings.Join(test.want, "\n"), explain(t, before(), test.after)); d != "" {
			t.Errorf("%s: %s", test.name, d)
		}
	}
}

// TestExplainPhases: a phase later, and an extension past the log.
func TestExplainPhases(t *testing.T) {
	t.Parallel()
	l := machine(7, "loader", "quiet").parse(t)
	values, err := l.Replay(pcr.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	record := func(value []byte) *eventlog.Record {
		r, err := l.Record(pcr.SHA256, map[int][]byte{11: value})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	initrd := pcr.SHA256.ExtendWords(values[11], "enter-initrd")
	const head = "PCR 11 (unified kernel image and boot phases): "
	if got := explain(t, record(initrd), record(pcr.SHA256.ExtendWords(initrd, "leave-initrd", "sysinit"))); got != head+"phase leave-initrd is new; phase sysinit is new" {
		t.Error(got)
	}
	if got := explain(t, record(initrd), record(pcr.SHA256.ExtendWords(initrd, "attack"))); got != head+"extensions that are not in the log is new; phase enter-initrd is gone" {
		t.Error(got)
	}
}

// TestExplainWithout: records without a log still tell which PCR moved.
func TestExplainWithout(t *testing.T) {
	t.Parallel()
	one, two := map[int][]byte{7: make([]byte, 32)}, map[int][]byte{7: []byte(strings.Repeat("x", 32))}
	bare := func(values map[int][]byte) *eventlog.Record { return eventlog.NewRecord(pcr.SHA256, values) }
	logged := recordOf(t, machine(1, "a", "b"), 7)
	same := *logged
	same.PCRs = []eventlog.RecordedPCR{logged.PCRs[0]}
	same.PCRs[0].Value = strings.Repeat("00", 32)
	tests := []struct {
		before, after *eventlog.Record
		want          string
	}{
		{bare(one), bare(one), ""},
		{bare(one), bare(two), "it changed; what was measured into it before is not recorded"},
		{bare(one), logged, "it changed; what was measured into it before is not recorded"},
		{logged, bare(one), "it changed; there is no event log that says by what"},
		{logged, &same, "it changed although the event log has the same events as before: it was reset, or extended past the log"},
	}
	for i, test := range tests {
		got := strings.TrimPrefix(explain(t, test.before, test.after), "PCR 7 (Secure Boot state and keys): ")
		if got != test.want {
			t.Errorf("%d: %s, want %s", i, got, test.want)
		}
	}
	other := eventlog.NewRecord(pcr.SHA384, nil)
	if _, err := eventlog.Explain(bare(one), other); err == nil || !strings.Contains(err.Error(), `"sha256" and "sha384"`) {
		t.Error(err)
	}
}

// events makes a record of PCR 7 with these digests, each about itself but for
// the letter after a point.
func events(digests ...string) *eventlog.Record {
	p := eventlog.RecordedPCR{PCR: 7, Value: fmt.Sprint(digests), Events: []eventlog.RecordedEvent{}}
	for _, d := range digests {
		about, _, _ := strings.Cut(d, ".")
		p.Events = append(p.Events, eventlog.RecordedEvent{Digest: d, About: about})
	}
	return &eventlog.Record{Bank: "sha256", PCRs: []eventlog.RecordedPCR{p}}
}

// TestOrder: the order counts, and repeated events are told apart.
func TestOrder(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ before, after, want string }{
		{"a b c", "a c b", "b is measured at another place in the order"},
		{"a a", "a", "a is gone"},
		{"a", "a a a", "a is new; a is new"},
		{"a.1 a.2 b", "a.1 a.3 b", "a has another content"},
		{"a.1 b", "b a.2", "a has another content"},
		{"a b", "", "a is gone; b is gone"},
		{"", "a b", "a is new; b is new"},
		{"x a y b z", "x b y a z", ""},
	} {
		got := explain(t, events(strings.Fields(test.before)...), events(strings.Fields(test.after)...))
		got = strings.TrimPrefix(got, "PCR 7 (Secure Boot state and keys): ")
		if test.want != "" && got != test.want || got == "" || strings.Contains(got, "same events") {
			t.Errorf("%q to %q: %s", test.before, test.after, got)
		}
	}
}

// TestHugeRecords: a record that someone made to keep us busy is compared in
// little time, and its text does no harm.
func TestHugeRecords(t *testing.T) {
	t.Parallel()
	many := func(letter string) *eventlog.Record {
		var digests []string
		for i := range 20000 {
			digests = append(digests, fmt.Sprintf("\x1b[2J%s%d", letter, i))
		}
		return events(digests...)
	}
	movements, err := eventlog.Explain(many("a"), many("b"))
	if err != nil || len(movements) != 1 || len(movements[0].Changes) != 40000 {
		t.Fatal(len(movements), err)
	}
	if strings.Contains(movements[0].String(), "\x1b") {
		t.Error("a terminal would obey")
	}
	// The other way round, one event may stay where it is, unless there are so many
	// that their order is not looked at.
	for n, want := range map[int]int{1000: 999, 2000: 2000} {
		var digests []string
		for i := range n {
			digests = append(digests, fmt.Sprint(i))
		}
		before := events(digests...)
		slices.Reverse(digests)
		movements, err := eventlog.Explain(before, events(digests...))
		if err != nil || len(movements) != 1 || len(movements[0].Changes) != want {
			t.Fatalf("%d events: %d movements, %v", n, len(movements), err)
		}
		for _, c := range movements[0].Changes {
			if c.Kind != eventlog.Moved {
				t.Fatalf("%d events: %s", n, c)
			}
		}
	}
}
