package logging

import (
	"testing"
	"time"
	"unicode/utf8"
)

// TestKernelTime: a message of now is dated now.
func TestKernelTime(t *testing.T) {
	now := time.Now()
	start := now.Add(-sinceBoot())
	m := kernelMessage{clock: uint64(sinceBoot().Microseconds())}
	at, err := time.Parse(time.RFC3339Nano, m.fields(start)[fieldTime].(string))
	if err != nil || at.Sub(now).Abs() > time.Second || sinceBoot() <= 0 {
		t.Errorf("%v, now is %v: %v", at, now, err)
	}
}

// FuzzKernel: whatever a record is, what is made of it is a line.
func FuzzKernel(f *testing.F) {
	f.Add([]byte("12,711,6252819,-;text\\x0a\n KEY=value\n"))
	f.Add([]byte("4294967295,18446744073709551615,9007199254740993;"))
	f.Add([]byte("6,1,2,-;\\x\\x1\\xgg\\"))
	f.Fuzz(func(t *testing.T, record []byte) {
		m, ok := parseKernel(record)
		if !ok {
			return
		}
		line := m.fields(time.Unix(0, 0)).line(map[string]string{"a": "b"})
		if len(line) > MaxLine || line[len(line)-1] != '\n' || !utf8.Valid(line) || !utf8.ValidString(m.text) {
			t.Errorf("%q", line)
		}
	})
}
