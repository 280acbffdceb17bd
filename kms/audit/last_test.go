package audit_test

import (
	"fmt"
	"testing"

	"github.com/cryptctl/cryptctl/kms/audit"
)

// TestLast: the last records of a kind, over the borders of files.
func TestLast(t *testing.T) {
	dir := t.TempDir()
	if from, err := audit.Last(dir, 3, func(audit.Record) bool { return true }); err != nil || from != 1 {
		t.Errorf("of an empty log: %d, %v", from, err)
	}
	l, err := audit.Open(dir, audit.Options{FileSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if err := l.Append(audit.Event{Op: "seal", Node: fmt.Sprint("node ", i%4)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := audit.Verify(t.Context(), dir); err != nil || r.Files < 4 {
		t.Fatalf("%d files, %v", r.Files, err)
	}
	for _, test := range []struct {
		node string
		n    int
		want uint64
	}{
		{"", 0, 21},
		{"", 1, 20},
		{"", 7, 14},
		{"", 20, 1},
		{"", 99, 1},
		{"node 3", 1, 20},
		{"node 0", 1, 17},
		{"node 0", 3, 9},
		{"node 0", 5, 1},
		{"node 0", 6, 1},
		{"node 9", 1, 1},
	} {
		from, err := audit.Last(dir, test.n, func(r audit.Record) bool { return test.node == "" || r.Node == test.node })
		if err != nil || from != test.want {
			t.Errorf("the last %d of %q begin with %d, %v; want %d", test.n, test.node, from, err, test.want)
		}
	}
	if _, err := audit.Last("nowhere", 1, nil); err == nil {
		t.Error("a directory that is not there has a last record")
	}
}
