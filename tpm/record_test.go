package tpm_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/token"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// firmware boots: it measures the actions, PCR by PCR, and keeps the log.
func firmware(t testing.TB, m *tpmtest.Machine, actions map[int][]string) []byte {
	t.Helper()
	var log []byte
	for index, texts := range actions {
		for _, text := range texts {
			log = tpmtest.Measure(t, m, log, index, uint32(eventlog.EvEFIAction), text)
		}
	}
	return log
}

func logOf(raw []byte) func() (*eventlog.Log, error) {
	return func() (*eventlog.Log, error) { return eventlog.Parse(raw) }
}

// now is the record of a machine as it is.
func now(t testing.TB, m *tpmtest.Machine, log []byte, pcrs ...int) *eventlog.Record {
	t.Helper()
	values, err := tpm.NewDevice(m.Open).ReadPCRs(t.Context(), "sha256", pcrs...)
	if err != nil {
		t.Fatal(err)
	}
	l, err := eventlog.Parse(log)
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Record(pcr.SHA256, values)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// recordIn demands a record in a token.
func recordIn(t testing.TB, raw json.RawMessage) *eventlog.Record {
	t.Helper()
	r, err := tpm.RecordOf(raw)
	if err != nil || r == nil {
		t.Fatalf("the token has the record %v, %v", r, err)
	}
	return r
}

// TestRecordOf: a token alone tells, in the next boot, which event moved which of
// its PCRs; the latch's, and those it is not sealed to, are not in it.
func TestRecordOf(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	log := firmware(t, m, map[int][]string{0: {"firmware 1.0"}, 4: {"loader"}, 7: {"Secure Boot is on", "db", "end"}})
	p := newProvider(t, m.Open, tpm.Options{Policy: tpm.Policy{PCRs: []int{7, 4}, Latch: true}, EventLog: logOf(log)})
	passphrase, raw := enroll(t, p)
	if d := cmp.Diff(now(t, m, log, 4, 7), recordIn(t, raw)); d != "" {
		t.Error(d)
	}
	opens(t, p, raw, passphrase)
	if err := p.CheckToken(raw); err != nil {
		t.Error(err)
	}
	m.Restart()
	log = firmware(t, m, map[int][]string{0: {"firmware 1.1"}, 4: {"loader"}, 7: {"Secure Boot is off", "db", "end"}})
	refuses(t, p, raw, tpm.PCRChanged)
	movements, err := eventlog.Explain(recordIn(t, raw), now(t, m, log, 4, 7))
	want := `PCR 7 (Secure Boot state and keys): action "Secure Boot is off" is new; action "Secure Boot is on" is gone`
	if err != nil || len(movements) != 1 || movements[0].String() != want {
		t.Errorf("%v, %v; want %s", movements, err, want)
	}
}

// TestAccounted: a register that something extended which is no part of the boot.
func TestAccounted(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	log := firmware(t, m, map[int][]string{0: {"firmware 1.0"}, 7: {"Secure Boot is on"}})
	opts := tpm.Options{Policy: tpm.Policy{PCRs: []int{7, 0}}, EventLog: logOf(log)}
	if err := newProvider(t, m.Open, opts).Accounted(t.Context()); err != nil {
		t.Errorf("as it booted: %v", err)
	}
	tpmtest.Extend(t, m, 7, "not in the log")
	if err := newProvider(t, m.Open, opts).Accounted(t.Context()); err == nil || !strings.Contains(err.Error(), "does not account for PCR 7") {
		t.Errorf("PCR 7 was extended: %v", err)
	}
	for name, o := range map[string]tpm.Options{
		"other PCRs": {Policy: tpm.Policy{PCRs: []int{0}, AllowWeak: true}, EventLog: logOf(log)},
		"no PCRs":    {Policy: tpm.Policy{AllowWeak: true}, EventLog: logOf(log)},
		"no log":     {Policy: tpm.Policy{PCRs: []int{7}}},
	} {
		if err := newProvider(t, m.Open, o).Accounted(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	opts.EventLog = func() (*eventlog.Log, error) { return nil, fs.ErrPermission }
	if err := newProvider(t, m.Open, opts).Accounted(t.Context()); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a log that cannot be read: %v", err)
	}
}

// TestNoRecord: what is not known for certain, or too long, is left out, and the
// key is sealed all the same.
func TestNoRecord(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	var many []string
	for i := range 200 {
		many = append(many, strconv.Itoa(i*i*7919))
	}
	log := firmware(t, m, map[int][]string{5: many, 7: {"Secure Boot is on"}})
	tpmtest.Extend(t, m, 4, "not in the log")
	tpmtest.Extend(t, m, 11, "image")
	other := tpmtest.Measure(t, tpmtest.Start(t), bytes.Clone(log), 7, uint32(eventlog.EvEFIAction), "more")
	boot := bootOf(signers()[0].sign(t, m.Open))
	for name, opts := range map[string]tpm.Options{
		"there is no log": {Policy: tpm.Policy{PCRs: []int{7}}},
		"it cannot be read": {
			Policy:   tpm.Policy{PCRs: []int{7}},
			EventLog: func() (*eventlog.Log, error) { return nil, errors.New("no securityfs") },
		},
		"nothing is read":                {Policy: tpm.Policy{PCRs: []int{7}}, EventLog: func() (*eventlog.Log, error) { return nil, nil }},
		"it is cut off":                  {Policy: tpm.Policy{PCRs: []int{7}}, EventLog: logOf(log[:len(log)-1])},
		"it is that of another boot":     {Policy: tpm.Policy{PCRs: []int{7}}, EventLog: logOf(other)},
		"a PCR is not accounted for":     {Policy: tpm.Policy{PCRs: []int{4, 7}}, EventLog: logOf(log)},
		"it is too long":                 {Policy: tpm.Policy{PCRs: []int{5, 7}}, EventLog: logOf(log)},
		"the policy has no literal PCRs": {Policy: tpm.Policy{PIN: true}, EventLog: logOf(log)},
		"the format has none":            {Format: tpm.Systemd, Policy: tpm.Policy{PCRs: []int{7}}, EventLog: logOf(log)},
		"nor this one":                   {Format: tpm.Talos, Policy: tpm.Policy{PCRs: []int{7}, Signed: true}, EventLog: logOf(log)},
	} {
		opts.PIN, opts.Boot = pin("1234"), boot
		p := newProvider(t, m.Open, opts)
		passphrase, raw := enroll(t, p)
		opens(t, p, raw, passphrase)
		if r, err := tpm.RecordOf(raw); r != nil || err != nil || strings.Contains(string(raw), "record") {
			t.Errorf("%s: the record %v, %v", name, r, err)
		}
	}
	good := newProvider(t, m.Open, tpm.Options{Policy: tpm.Policy{PCRs: []int{7}}, EventLog: logOf(log)})
	_, raw := enroll(t, good)
	recordIn(t, raw)
}

// TestBadRecord: a record that somebody changed is named, and the token opens.
func TestBadRecord(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	log := firmware(t, m, map[int][]string{4: {"loader"}, 7: {"Secure Boot is on"}})
	p := newProvider(t, m.Open, tpm.Options{Policy: tpm.Policy{PCRs: []int{7}}, EventLog: logOf(log)})
	passphrase, raw := enroll(t, p)
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		t.Fatal(err)
	}
	packed := func(change func(*eventlog.Record)) string {
		r := now(t, m, log, 7)
		change(r)
		b, err := r.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return `"` + base64.StdEncoding.EncodeToString(b) + `"`
	}
	if own := packed(func(*eventlog.Record) {}); own != string(members["record"]) {
		t.Fatalf("the record is %s, want %s", members["record"], own)
	}
	for want, value := range map[string]string{
		"cannot be unpacked":                        `7`,
		"unexpected EOF":                            `""`,
		"corrupt input":                             `"bm8gREVGTEFURQ=="`,
		"its value of PCR 7 is not that":            packed(func(r *eventlog.Record) { r.PCRs[0].Value = strings.Repeat("00", 32) }),
		"its value of PCR 4 is not that":            packed(func(r *eventlog.Record) { r.PCRs[0].PCR = 4 }),
		"it is of other PCRs than the token":        packed(func(r *eventlog.Record) { *r = *now(t, m, log, 4, 7) }),
		"the value of PCR 7 is none of sha384":      packed(func(r *eventlog.Record) { r.Bank = "sha384" }),
		"does not come after PCR 7":                 packed(func(r *eventlog.Record) { r.PCRs = append(r.PCRs, r.PCRs[0]) }),
		"a digest of PCR 7 is not 8 bytes":          packed(func(r *eventlog.Record) { r.PCRs[0].Events[0].Digest = "" }),
		"it cannot be unpacked: flate: corrupt inp": `"` + strings.Repeat("/", 2048) + `"`,
	} {
		members["record"] = json.RawMessage(value)
		changed, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := tpm.RecordOf(changed); r != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, %v; want %q", value, r, err, want)
		}
		opens(t, p, changed, passphrase)
	}
	if _, err := tpm.RecordOf(json.RawMessage(`{"type":"` + token.TypeOwn + `"}`)); err == nil {
		t.Error("what is no token has no record, and no error")
	}
}
