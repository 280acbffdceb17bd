package eventlog_test

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
)

func locality(n ...byte) []byte { return append([]byte("StartupLocality\x00"), n...) }

// TestLocality: PCR 0 begins with the locality of the start, and nothing else
// does.
func TestLocality(t *testing.T) {
	t.Parallel()
	for _, n := range []byte{0, 3, 4} {
		values, err := newWriter(pcr.SHA256).note(locality(n)).data(0, eventlog.EvSeparator, separator).parse(t).Replay(pcr.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(separator)
		want := sha256.Sum256(append(append(make([]byte, 31), n), sum[:]...))
		if !bytes.Equal(values[0], want[:]) {
			t.Errorf("locality %d: PCR 0 is %x, want %x", n, values[0], want)
		}
		if !bytes.Equal(values[1], make([]byte, 32)) || !bytes.Equal(values[17], bytes.Repeat([]byte{0xff}, 32)) || !bytes.Equal(values[23], make([]byte, 32)) {
			t.Errorf("PCR 1, 17 and 23 are %x, %x and %x", values[1], values[17], values[23])
		}
	}
	refused := map[string]*writer{
		"gives the startup locality 2":   newWriter(pcr.SHA256).note(locality(2)),
		"has 18 bytes":                   newWriter(pcr.SHA256).note(locality(3, 0)),
		"is a second startup locality":   newWriter(pcr.SHA256).note(locality(3)).note(locality(3)),
		"comes after an event of PCR 0":  newWriter(pcr.SHA256).data(0, eventlog.EvSeparator, separator).note(locality(3)),
		"the startup locality, has 16 b": newWriter(pcr.SHA256).note(locality()),
	}
	for want, w := range refused {
		if _, err := w.parse(t).Replay(pcr.SHA256); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestReplayRefuses: a bank that the log does not account for has no values.
func TestReplayRefuses(t *testing.T) {
	t.Parallel()
	w := newWriter(pcr.SHA1, pcr.SHA256)
	w.raw(7, eventlog.EvSeparator, map[pcr.Bank][]byte{pcr.SHA1: pcr.SHA1.Sum(separator)}, separator)
	l := w.parse(t)
	if _, err := l.Replay(pcr.SHA1); err != nil {
		t.Error(err)
	}
	for bank, want := range map[pcr.Bank]string{
		pcr.SHA256: "event 1 of the event log, of PCR 7, has no sha256 digest",
		pcr.SHA384: "no sha384 digests",
	} {
		if _, err := l.Replay(bank); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if _, err := l.Compare(bank, nil); err == nil {
			t.Errorf("values of %s were compared", bank)
		}
		if _, err := l.Record(bank, nil); err == nil {
			t.Errorf("a record of %s was made", bank)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	l := machine(3, "loader", "quiet").parse(t)
	values, err := l.Replay(pcr.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	zeros, other := make([]byte, 32), bytes.Repeat([]byte{7}, 32)
	initrd := pcr.SHA256.ExtendWords(values[11], "enter-initrd")
	talos := pcr.SHA256.ExtendWords(initrd, "leave-initrd", "enter-machined")
	tests := []struct {
		index int
		value []byte
		want  eventlog.Agreement
		words string
	}{
		{7, values[7], eventlog.Agrees, "has the value that the event log gives it (3 events)"},
		{7, other, eventlog.Deviates, "something extended it that is not in the log"},
		{7, zeros, eventlog.Untouched, "the event log has 3 events for it"},
		{10, zeros, eventlog.Agrees, "(0 events)"},
		{10, other, eventlog.Unlogged, "the operating system did that"},
		{15, other, eventlog.Unlogged, "PCR 15 (system identity and volume keys)"},
		{11, values[11], eventlog.Agrees, "(4 events)"},
		{11, initrd, eventlog.Phases, "after that, the phases enter-initrd"},
		{11, talos, eventlog.Phases, "phases enter-initrd:leave-initrd:enter-machined"},
		{11, pcr.SHA256.ExtendWords(talos, "wrong"), eventlog.Deviates, "not in the log"},
		{4, initrd, eventlog.Deviates, "the event log's 2 events give"},
	}
	for _, test := range tests {
		verdicts, err := l.Compare(pcr.SHA256, map[int][]byte{test.index: test.value})
		if err != nil || len(verdicts) != 1 {
			t.Fatal(verdicts, err)
		}
		v := verdicts[0]
		if v.Agreement != test.want || !strings.Contains(v.String(), test.words) || v.Accounted() != (test.want == eventlog.Agrees || test.want == eventlog.Phases) {
			t.Errorf("PCR %d: %s: %s, want %s: %s", test.index, v.Agreement, v.String(), test.want, test.words)
		}
	}
	for index, value := range map[int][]byte{24: zeros, -1: zeros, 7: zeros[:31]} {
		if _, err := l.Compare(pcr.SHA256, map[int][]byte{index: value}); err == nil {
			t.Errorf("PCR %d with %d bytes was compared", index, len(value))
		}
	}
}

// TestNoImage: phases without a unified kernel image in the log.
func TestNoImage(t *testing.T) {
	t.Parallel()
	l := newWriter(pcr.SHA256).parse(t)
	for value, want := range map[string]eventlog.Agreement{
		string(pcr.SHA256.ExtendWords(make([]byte, 32), "enter-initrd")): eventlog.Phases,
		string(pcr.SHA256.ExtendWords(make([]byte, 32), "x")):            eventlog.Unlogged,
	} {
		verdicts, err := l.Compare(pcr.SHA256, map[int][]byte{11: []byte(value)})
		if err != nil || verdicts[0].Agreement != want {
			t.Errorf("%s, %v", verdicts[0].String(), err)
		}
	}
}
