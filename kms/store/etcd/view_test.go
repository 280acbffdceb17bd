package etcd

import (
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/store"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }

// loaded is a view of revision 10, read at 0 ms, with the value a.
func loaded() *view {
	v := &view{}
	v.load(map[string]store.Entry{"a": {Value: []byte("1"), Revision: 7}}, 10, at(0))
	return v
}

func TestView(t *testing.T) {
	for _, tt := range []struct {
		name  string
		do    func(v *view)
		fresh int // ms; -1: never
	}{
		{"just loaded", func(*view) {}, 0},
		{"nothing changed", func(v *view) { v.probed(at(100), 10) }, 100},
		{"the cluster never had a change", func(v *view) { v.probed(at(100), 0) }, 100},
		{"the watch is behind", func(v *view) { v.probed(at(100), 11) }, 0},
		{"the watch catches up", func(v *view) {
			v.probed(at(100), 11)
			v.apply("a", store.Entry{Value: []byte("2"), Revision: 11})
		}, 100},
		{"it catches up with one of two", func(v *view) {
			v.probed(at(100), 11)
			v.probed(at(200), 13)
			v.apply("b", store.Entry{Revision: 12})
		}, 100},
		{"progress without a value", func(v *view) {
			v.probed(at(100), 12)
			v.apply("", store.Entry{Revision: 12})
		}, 100},
		{"an older probe answers late", func(v *view) {
			v.probed(at(200), 10)
			v.probed(at(100), 10)
		}, 200},
		{"the watch was lost", func(v *view) { v.drop() }, -1},
		{"a probe after that", func(v *view) {
			v.drop()
			v.probed(at(300), 0)
		}, -1},
		{"a late event after that", func(v *view) {
			v.drop()
			v.apply("a", store.Entry{Revision: 11})
			v.probed(at(300), 11)
		}, -1},
		{"more probes than are kept", func(v *view) {
			for i := range 100 {
				v.probed(at(100+i), uint64(11+i))
			}
			v.apply("", store.Entry{Revision: 1000})
		}, 199},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := loaded()
			tt.do(v)
			const age = 1000 * time.Millisecond
			if tt.fresh < 0 {
				if _, _, known := v.get("a", 1000*time.Hour, at(0)); known {
					t.Error("it is answered")
				}
				return
			}
			if _, _, known := v.get("a", age, at(tt.fresh+1000)); !known {
				t.Errorf("not answered %v after %d ms", age, tt.fresh)
			}
			if _, _, known := v.get("a", age, at(tt.fresh+1001)); known {
				t.Errorf("answered more than %v after %d ms", age, tt.fresh)
			}
		})
	}
}

func TestViewValues(t *testing.T) {
	v := loaded()
	v.apply("a", store.Entry{Value: []byte("2"), Revision: 11})
	v.apply("b", store.Entry{Value: []byte("3"), Revision: 12})
	for name, want := range map[string]string{"a": "2", "b": "3", "c": ""} {
		e, found, known := v.get(name, time.Second, at(0))
		if !known || found != (want != "") || string(e.Value) != want {
			t.Errorf("%s: %q, %v, %v", name, e.Value, found, known)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{}, {Endpoints: []string{"https://x:2379"}, Prefix: "/no/slash"}} {
		if s, err := Open(o); err == nil {
			s.Close()
			t.Errorf("%+v is taken", o)
		}
	}
}
