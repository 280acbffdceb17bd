package etcd

import (
	"sync"
	"time"

	"github.com/cryptctl/cryptctl/kms/store"
)

// view is a copy of all values, and when it was the newest state for certain.
//
//	probe: at t0 the cluster said that revision m was the last change
//	watch: changes up to revision r are in the view
//	r >= m  ==>  at t0 the view was, or is now, not older than the cluster
type view struct {
	mu      sync.RWMutex
	values  map[string]store.Entry
	applied uint64    // the last revision that is in values
	fresh   time.Time // values are not older than the cluster was then; zero: not known
	probes  []probe   // answered, and waiting for the watch to get there
}

type probe struct {
	at       time.Time // before the cluster was asked
	revision uint64
}

// maxProbes bounds those that wait; the watch of a healthy cluster needs one.
const maxProbes = 16

// get returns a value if the view is at most age old; known is false if it is not.
func (v *view) get(name string, age time.Duration, now time.Time) (e store.Entry, found, known bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.values == nil || v.fresh.IsZero() || now.Sub(v.fresh) > age {
		return store.Entry{}, false, false
	}
	e, found = v.values[name]
	return e, found, true
}

// load replaces everything by a state that was asked for at the time at.
func (v *view) load(values map[string]store.Entry, revision uint64, at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.values, v.applied, v.fresh, v.probes = values, revision, at, nil
}

// apply takes over one change, and that nothing is missing up to it. An empty
// name only says the latter.
func (v *view) apply(name string, e store.Entry) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.values == nil {
		return
	}
	if name != "" {
		v.values[name] = e
	}
	v.applied = max(v.applied, e.Revision)
	v.settle()
}

// probed takes over that the cluster's last change was revision, asked at the
// time at.
func (v *view) probed(at time.Time, revision uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.probes = append(v.probes, probe{at, revision}); len(v.probes) > maxProbes {
		v.probes = v.probes[1:]
	}
	v.settle()
}

// settle counts the probes that the watch has caught up with.
func (v *view) settle() {
	kept := v.probes[:0]
	for _, p := range v.probes {
		switch {
		case p.revision > v.applied:
			kept = append(kept, p)
		case v.values != nil && p.at.After(v.fresh):
			v.fresh = p.at
		}
	}
	v.probes = kept
}

// drop forgets everything: the watch was lost.
func (v *view) drop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.values, v.applied, v.fresh, v.probes = nil, 0, time.Time{}, nil
}
