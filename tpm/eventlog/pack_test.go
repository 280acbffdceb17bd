package eventlog_test

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
)

func deflate(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestPack: a packed record is the same again, and that of a real machine's usual
// PCRs fits a token.
func TestPack(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/ovmf-secureboot.bin")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		record *eventlog.Record
		most   int
	}{
		"PCR 7":       {recordOf(t, &writer{b: raw}, 7), 450},
		"PCR 0, 4, 7": {recordOf(t, &writer{b: raw}, 0, 4, 7), 800},
		"values only": {eventlog.NewRecord(pcr.SHA384, map[int][]byte{4: make([]byte, 48), 0: make([]byte, 48)}), 200},
	} {
		packed, err := test.record.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if len(packed) > test.most {
			t.Errorf("%s: %d bytes, more than %d", name, len(packed), test.most)
		}
		again, err := eventlog.Unpack(packed)
		if err != nil || cmp.Diff(test.record, again) != "" {
			t.Errorf("%s: %v %s", name, err, cmp.Diff(test.record, again))
		}
	}
	long := eventlog.NewRecord(pcr.SHA256, map[int][]byte{7: make([]byte, 32)})
	long.PCRs[0].Events = []eventlog.RecordedEvent{{Digest: strings.Repeat("0", 16), About: strings.Repeat("x", 64<<10)}}
	if _, err := long.Pack(); err == nil || !strings.Contains(err.Error(), "more than 65536") {
		t.Errorf("a record that cannot be unpacked is packed: %v", err)
	}
}

// TestUnpackRefuses: what is not exactly a record is none.
func TestUnpackRefuses(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(recordOf(t, machine(3, "a", "quiet"), 4, 7))
	if err != nil {
		t.Fatal(err)
	}
	good := string(text)
	if _, err := eventlog.ReadRecord(text); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ old, by, want string }{
		{`"sha256"`, `"md5"`, `no PCR bank "md5"`},
		{`{"bank"`, `{"more":1,"bank"`, `unknown field "more"`},
		{`"pcr":4`, `"pcr":7`, "PCR 7 does not exist, or does not come after PCR 7"},
		{`"pcr":4`, `"pcr":-1`, "PCR -1 does not exist"},
		{`"pcr":7`, `"pcr":24`, "PCR 24 does not exist"},
		{`"value":"`, `"value":"00`, "the value of PCR 4 is none of sha256"},
		{`"digest":"`, `"digest":"00`, "a digest of PCR 4 is not 8 bytes"},
		{`"digest":"`, `"digest":"x`, "a digest of PCR 4 is not 8 bytes"},
		{good, good + good, "something follows it"},
		{good, `{"bank":"sha256","pcrs":[]}`, "names no PCR"},
		{good, "", "EOF"},
		{good, good + strings.Repeat(" ", 64<<10), "more than 65536 bytes"},
	} {
		changed := strings.Replace(good, test.old, test.by, 1)
		if changed == good {
			t.Fatalf("there is no %s", test.old)
		}
		if _, err := eventlog.Unpack(deflate(t, changed)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.40s: %v, want %q", test.by, err, test.want)
		}
	}
	packed := deflate(t, good)
	for want, b := range map[string][]byte{
		"1 bytes follow it":        append(bytes.Clone(packed), 0),
		"unexpected EOF":           packed[:len(packed)-1],
		"more than 65536 bytes":    deflate(t, strings.Repeat(" ", 1<<24)),
		"cannot be unpacked: unex": {},
		"corrupt input":            []byte("no DEFLATE"),
	} {
		if _, err := eventlog.Unpack(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// FuzzUnpack: what is read is packed and read as the same again, and can be
// explained.
func FuzzUnpack(f *testing.F) {
	for _, indexes := range [][]int{{7}, {4, 7, 11}} {
		packed, err := recordOf(f, machine(3, "a", "quiet"), indexes...).Pack()
		if err != nil {
			f.Fatal(err)
		}
		if _, err := eventlog.Unpack(packed); err != nil {
			f.Fatalf("a seed that is refused at once: %v", err)
		}
		f.Add(packed)
	}
	now := recordOf(f, machine(4, "b", ""), 4, 7, 11)
	f.Fuzz(func(t *testing.T, packed []byte) {
		r, err := eventlog.Unpack(packed)
		if err != nil {
			return
		}
		if _, err := eventlog.Explain(r, now); err != nil && r.Bank == now.Bank {
			t.Fatal(err)
		}
		short, err := r.Pack()
		if err != nil {
			return // escaped anew it can be longer
		}
		again, err := eventlog.Unpack(short)
		if err != nil || cmp.Diff(r, again) != "" {
			t.Fatal(err, cmp.Diff(r, again))
		}
	})
}
