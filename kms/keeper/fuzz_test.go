package keeper

import (
	"bytes"
	"encoding/json"
	"testing"
)

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"format":1,"policy":{"state":"approved"},"made":"2026-11-22T12:00:00Z","last_version":2,"keys":[{"version":1,"wrapped":"AQ==","made":"2026-11-22T12:00:00Z"},{"version":2,"wrapped":"AQ==","made":"2026-11-22T12:00:00Z"}]}`))
	f.Add([]byte(`{"format":1,"policy":{"state":"pending","until":"2026-11-22T12:00:00Z","networks":["10.0.0.0/8"],"limit":{"per_hour":6,"burst":2}},"made":"2026-11-22T12:00:00Z","comment":"x"}`))
	f.Add([]byte(`{"format":1,"policy":{"state":"revoked"},"keys":[{"version":1}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRecord(text)
		if err != nil {
			return
		}
		again, err := r.encode()
		if err != nil {
			t.Fatalf("read, and not written: %v", err)
		}
		s, err := parseRecord(again)
		if err != nil {
			t.Fatal(err)
		}
		if third, err := s.encode(); err != nil || !bytes.Equal(again, third) {
			t.Fatalf("%s becomes %s", again, third)
		}
	})
}

func FuzzImported(f *testing.F) {
	f.Add([]byte(`{"format":1,"node":"01234567-89ab-cdef-0123-456789abcdef","blob":"AAAA","made":"2026-11-22T12:00:00Z"}`))
	f.Add([]byte(`{"format":1,"node":"01234567-89AB-cdef-0123-456789abcdef"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		i, err := parseImported(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		if j, err := parseImported(again); err != nil || j.Node != i.Node || !bytes.Equal(i.Blob, j.Blob) {
			t.Fatalf("%s: %v", again, err)
		}
	})
}

func FuzzRules(f *testing.F) {
	f.Add([]byte(`{"format":1,"rules":{"enrol":"open","networks":["10.0.0.0/8"],"limit":{"per_hour":6,"burst":2}}}`))
	f.Add([]byte(`{"format":1,"rules":{"enrol":"x"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRules(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(rulesRecord{recordFormat, r})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseRules(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}
