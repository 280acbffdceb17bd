package eventlog_test

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// fuzzSeeds are logs by what they are for.
func fuzzSeeds(t testing.TB) map[string][]byte {
	t.Helper()
	seeds := map[string][]byte{
		"machine": machine(3, "loader", "quiet").b,
		"padded":  append(machine(1, "", "").b, make([]byte, 64)...),
		"started": newWriter(pcr.SHA384, pcr.SHA512).note(locality(3)).data(0, eventlog.EvSeparator, separator).b,
		"words": newWriter(pcr.SHA256).data(4, eventlog.EvBootDriver, image("a")).data(5, eventlog.EvGPT, gpt("a")).
			data(1, eventlog.EvVariableBoot, variable("Boot0000", make([]byte, 12))).data(9, eventlog.EvEventTag, make([]byte, 8)).
			data(0, eventlog.EvFirmwareBlob2, make([]byte, 17)).data(7, eventlog.EvVariableAuthority, variable("db", make([]byte, 48))).b,
		"legacy":   header(make([]byte, 32)),
		"no event": newWriter(pcr.SHA1).b,
	}
	for _, name := range []string{"ovmf-secureboot", "ovmf-insecure"} {
		raw, err := os.ReadFile("testdata/" + name + ".bin")
		if err != nil {
			t.Fatal(err)
		}
		seeds[name] = raw
	}
	return seeds
}

// TestFuzzSeeds: the seeds reach what they are for.
func TestFuzzSeeds(t *testing.T) {
	t.Parallel()
	for name, events := range map[string]int{
		"machine": 10, "padded": 8, "started": 3, "words": 7, "legacy": 0, "no event": 1, "ovmf-secureboot": 39, "ovmf-insecure": 39,
	} {
		l, err := eventlog.Parse(fuzzSeeds(t)[name])
		if err != nil && events != 0 {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && len(l.Events) != events {
			t.Errorf("%s has %d events, want %d", name, len(l.Events), events)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range fuzzSeeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		kept := bytes.Clone(raw)
		l, err := eventlog.Parse(raw)
		if err != nil {
			return
		}
		for i := range l.Events {
			for _, r := range l.Events[i].String() {
				if r < ' ' || r == 0x7f {
					t.Fatalf("event %d: %q", i, l.Events[i].String())
				}
			}
		}
		for _, bank := range pcr.Banks() {
			values, err := l.Replay(bank)
			if err != nil {
				continue
			}
			record, err := l.Record(bank, values)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range record.PCRs {
				if len(p.Events) > 0 && p.Events[len(p.Events)-1].About == "extensions that are not in the log" {
					t.Fatalf("PCR %d of %s deviates from its own log", p.PCR, bank)
				}
			}
			if movements, err := eventlog.Explain(record, record); err != nil || len(movements) > 0 {
				t.Fatal(movements, err)
			}
		}
		if !bytes.Equal(raw, kept) {
			t.Fatal("the log was changed")
		}
	})
}

func FuzzExplain(f *testing.F) {
	var texts [][]byte
	for _, w := range []*writer{machine(3, "a", "quiet"), machine(4, "b", "")} {
		text, err := json.Marshal(recordOf(f, w, 4, 7, 11))
		if err != nil {
			f.Fatal(err)
		}
		texts = append(texts, text)
	}
	f.Add(texts[0], texts[1])
	f.Add(texts[0], []byte(`{"bank":"sha256","pcrs":[{"pcr":7,"value":"00","events":null},{"pcr":-5}]}`))
	f.Fuzz(func(t *testing.T, before, after []byte) {
		var a, b eventlog.Record
		if json.Unmarshal(before, &a) != nil || json.Unmarshal(after, &b) != nil {
			return
		}
		movements, err := eventlog.Explain(&a, &b)
		if err != nil {
			return
		}
		for _, m := range movements {
			if m.Unknown == "" && len(m.Changes) == 0 {
				t.Fatalf("PCR %d moved, and nothing is said of it", m.PCR)
			}
			for _, r := range m.String() {
				if r < ' ' || r == 0x7f {
					t.Fatalf("%q", m.String())
				}
			}
		}
	})
}
