package keys_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/keys/keystest"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/lukstest"
)

// mixed is a volume and the keys of a sync in which everything happens: slot 0
// is kept, 1 replaced, 2 removed, 3 unavailable, 4 another tool's and kept, 5
// another tool's and foreign, 6 added, 7 added.
func mixed(t testing.TB) (d *lukstest.Disk, want []keys.Key) {
	sealer, silent := keystest.NewSealer(), keystest.NewSealer()
	d = format(t, static(0, "zero"), static(1, "one"), static(2, "two"), silent.Key(3))
	tamper(t, d, "zero", func(_ *luks.Header, key *luks.VolumeKey) []luks.Change {
		return []luks.Change{luks.AddKeyslot(4, seal(t, key, "four"), nil), luks.AddKeyslot(5, seal(t, key, "five"), nil)}
	})
	silent.Fail(keystest.Fault{Err: down()})
	return d.Clone(), []keys.Key{static(0, "zero"), static(1, "new"), silent.Key(3), static(4, "four"), static(6, "six"), sealer.Key(7)}
}

func TestReportJSON(t *testing.T) {
	d, want := mixed(t)
	r := reconcile(t, d, keys.Options{}, want...)
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(reportJSON, "\n"), strings.Split(string(text), "\n")); d != "" {
		t.Errorf("report (-want +got):\n%s", d)
	}
	if r.Blocked() != 1 {
		t.Errorf("Blocked gives %d", r.Blocked())
	}
}

const reportJSON = `{
  "volume": "STATE",
  "uuid": "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b",
  "seqid": 3,
  "changed": true,
  "slots": [
    {
      "slot": 0,
      "outcome": "kept",
      "kind": "static",
      "reason": "opens (derived)"
    },
    {
      "slot": 1,
      "outcome": "replaced",
      "kind": "static",
      "reason": "the configured key does not open it"
    },
    {
      "slot": 2,
      "outcome": "removed",
      "reason": "not configured any more"
    },
    {
      "slot": 3,
      "outcome": "blocked",
      "kind": "sealed",
      "reason": "stays, but could not be checked: unavailable: the server is down"
    },
    {
      "slot": 4,
      "outcome": "kept",
      "kind": "static",
      "reason": "opens (derived); adopted"
    },
    {
      "slot": 5,
      "outcome": "foreign",
      "reason": "not made by this tool"
    },
    {
      "slot": 6,
      "outcome": "added",
      "kind": "static",
      "reason": "configured, not there"
    },
    {
      "slot": 7,
      "outcome": "added",
      "kind": "sealed",
      "reason": "configured, not there"
    }
  ]
}`

func TestReportTable(t *testing.T) {
	d, want := mixed(t)
	got := table(t, reconcile(t, d, keys.Options{}, want...))
	if d := cmp.Diff(strings.Split(reportTable, "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("table (-want +got):\n%s", d)
	}
}

const reportTable = `SLOT  OUTCOME   KIND    REASON
0     kept      static  opens (derived)
1     replaced  static  the configured key does not open it
2     removed   -       not configured any more
3     blocked   sealed  stays, but could not be checked: unavailable: the server is down
4     kept      static  opens (derived); adopted
5     foreign   -       not made by this tool
6     added     static  configured, not there
7     added     sealed  configured, not there
`

// TestWriteSteps: a plan before it is run; making it writes nothing.
func TestWriteSteps(t *testing.T) {
	d, want := mixed(t)
	s := open(t, d, keys.Options{}, want...)
	st, err := s.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := keys.WriteSteps(&b, keys.Plan(st, keys.Policy{Prune: true})); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(stepsTable, "\n"), strings.Split(b.String(), "\n")); d != "" {
		t.Errorf("table (-want +got):\n%s", d)
	}
	if writes(d) > 0 {
		t.Errorf("planning wrote %v", d.Ops())
	}
}

const stepsTable = `SLOT  ACTION   KIND    REASON
0     keep     static  opens (derived)
1     replace  static  the configured key does not open it
2     remove   -       not configured any more
3     blocked  sealed  stays, but could not be checked: unavailable: the server is down
4     keep     static  opens (derived); adopted
5     remove   -       not made by this tool, and foreign slots are to be pruned
6     add      static  configured, not there
7     add      sealed  configured, not there
`

// TestTableIsSafe: reasons hold text from disks and servers. One slot is one
// line of what is printed, and no escape sequence reaches a terminal.
func TestTableIsSafe(t *testing.T) {
	steps := []keys.Step{
		{Slot: 0, Action: keys.Blocked, Kind: "kms", Reason: "the server says \"\x1b[2J\x1b]0;owned\x07\"\n9     kept      static  all is well\r\tand \v\f\x7f\u0085\u2028\u202e\xff"},
		{Slot: 1, Action: keys.Keep, Kind: "static", Reason: "größer ☃"},
	}
	var b strings.Builder
	if err := keys.WriteSteps(&b, steps); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != 3 {
		t.Errorf("%d lines:\n%q", len(lines), b.String())
	}
	for _, r := range b.String() {
		if r != '\n' && (r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u2028' || r == '\u202e') {
			t.Errorf("prints %q", r)
		}
	}
	if !strings.HasSuffix(lines[2], "größer ☃") {
		t.Errorf("harmless text is changed: %q", lines[2])
	}
}

// TestTableError: a writer that fails is an error.
func TestTableError(t *testing.T) {
	r := &keys.Report{Slots: []keys.Result{{Slot: 0, Outcome: keys.Kept}}}
	if err := r.WriteTable(full{}); err == nil {
		t.Error("no error")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, fmt.Errorf("no space left on device") }
