package node

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/volume"
)

// Status is what a node is doing.
type Status struct {
	Phase   Phase          `json:"phase"`
	Reason  string         `json:"reason,omitempty"`
	Notices []string       `json:"notices,omitempty"` // damage of META that was got around, and the like
	Trial   bool           `json:"trial,omitempty"`   // a configuration is on trial
	Latched bool           `json:"latched,omitempty"` // the TPM unseals nothing that has a latch until the next boot
	Volumes []VolumeStatus `json:"volumes"`
}

// VolumePhase is how far a volume has come.
type VolumePhase string

// Phases of a volume.
const (
	VolumeMissing VolumePhase = "missing" // no partition has its label
	VolumeRefused VolumePhase = "refused" // not what it should be; untouched
	VolumeFailed  VolumePhase = "failed"  // no key opens it now, or another error
	VolumeOpen    VolumePhase = "open"
	VolumeClosed  VolumePhase = "closed"
	VolumeWiped   VolumePhase = "wiped"
	VolumeStaged  VolumePhase = "staged" // the next boot makes or opens it
)

// VolumeStatus is what is known of one volume.
type VolumeStatus struct {
	Name      string        `json:"name"`
	Phase     VolumePhase   `json:"phase"`
	Device    string        `json:"device,omitempty"`
	Dir       string        `json:"dir,omitempty"`
	Encrypted bool          `json:"encrypted"`
	UUID      string        `json:"uuid,omitempty"`
	Formatted bool          `json:"formatted,omitempty"` // in this boot
	Slot      int           `json:"slot"`                // that opened it; -1 for none
	Kinds     []string      `json:"kinds,omitempty"`     // of the configured keys, by slot
	Pending   []string      `json:"pending,omitempty"`   // changes that are not in force
	Slots     []keys.Result `json:"slots,omitempty"`     // of the last reconciliation
	Asking    []int         `json:"asking,omitempty"`    // slots whose key servers have not answered yet
	Errors    []string      `json:"errors,omitempty"`    // of the last attempt
}

// view is the status, which is read while a flow runs.
type view struct {
	mu     sync.Mutex
	status Status
	// leftOut are notices of what is left out of the configuration in force.
	leftOut []string
	byName  map[string]*VolumeStatus
}

// volume changes the status of one volume.
func (v *view) volume(name string, change func(*VolumeStatus)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.byName == nil {
		v.byName = map[string]*VolumeStatus{}
	}
	if v.byName[name] == nil {
		v.byName[name] = &VolumeStatus{Name: name, Slot: -1}
	}
	change(v.byName[name])
}

// Status returns what the node is doing. It never waits for a flow.
func (n *Node) Status() Status {
	n.view.mu.Lock()
	defer n.view.mu.Unlock()
	s := n.view.status
	s.Notices = slices.Concat(s.Notices, n.view.leftOut)
	s.Volumes = []VolumeStatus{}
	for _, name := range slices.Sorted(maps.Keys(n.view.byName)) {
		s.Volumes = append(s.Volumes, *n.view.byName[name])
	}
	return s
}

// phase changes the node's phase.
func (n *Node) phase(p Phase, reason string) {
	n.view.mu.Lock()
	changed := n.view.status.Phase != p || n.view.status.Reason != reason
	n.view.status.Phase, n.view.status.Reason = p, reason
	n.view.mu.Unlock()
	n.log.Info("node", "phase", string(p), "reason", reason)
	if changed && n.opts.Phase != nil {
		n.opts.Phase(p, reason)
	}
}

// notice adds what an operator should know, once.
func (n *Node) notice(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	n.log.Warn(text)
	n.view.mu.Lock()
	defer n.view.mu.Unlock()
	if !slices.Contains(n.view.status.Notices, text) {
		n.view.status.Notices = append(n.view.status.Notices, text)
	}
}

// leftOut shows what is left out of the configuration in force.
func (n *Node) leftOut(m *machine) {
	var all []string
	for _, mistake := range m.LeftOut {
		text := fmt.Sprintf("a part of the configuration is left out: %v", mistake)
		n.log.Warn(text)
		all = append(all, text)
	}
	n.view.mu.Lock()
	defer n.view.mu.Unlock()
	n.view.leftOut = all
}

// opened shows an open volume.
func (n *Node) opened(v *volume.Volume) {
	n.view.volume(v.Spec.Name, func(s *VolumeStatus) {
		s.Phase, s.Device, s.Dir, s.Slot, s.Errors = VolumeOpen, v.Device, v.Dir(), v.Slot, nil
		s.Encrypted, s.Formatted = v.Spec.Encryption != nil, s.Formatted || v.Formatted
		if v.Identity != nil {
			s.UUID = v.Identity.UUID
		}
		if v.Locked != nil {
			s.Errors = []string{"mapped already, but no key opens it: " + v.Locked.Error()}
		}
	})
}

// isOff reports whether a slot is not as configured. One that cannot be checked
// since the latch was closed, and that was in step before with the same key, is.
func (n *Node) isOff(name string, slot keys.Result) bool {
	if slot.Outcome != keys.WasBlocked {
		return false
	}
	before := n.unlatched[name]
	if !n.latched || before == nil || before.encryption(name) == nil || n.config.encryption(name) == nil {
		return true
	}
	was := before.encryption(name).Keys
	return !slices.ContainsFunc(n.config.encryption(name).Keys, func(k config.Key) bool {
		return k.Slot == slot.Slot && hasLatch(k) && slices.ContainsFunc(was, func(o config.Key) bool { return sameKey(o, k) })
	})
}

// reconciled notes and shows what became of the slots.
func (n *Node) reconciled(name string, r *keys.Report, err error) {
	if r != nil {
		n.reports[name] = r
	}
	delete(n.waiting, name)
	n.askLater(name, r)
	n.compare(name, r, err)
	n.view.volume(name, func(s *VolumeStatus) {
		s.Errors, s.Asking = nil, nil
		if r != nil {
			if s.Slots, s.Kinds = r.Slots, nil; n.asking[name] {
				s.Asking = r.Asking
			}
			for _, slot := range r.Slots {
				if slot.Kind != "" && slot.Outcome != keys.StayedForeign && slot.Outcome != keys.Removed {
					s.Kinds = append(s.Kinds, slot.Kind)
				}
				if n.isOff(name, slot) && !slices.Contains(s.Asking, slot.Slot) {
					s.Errors = append(s.Errors, fmt.Sprintf("slot %d: %s", slot.Slot, slot.Reason))
				}
			}
		}
		if err != nil {
			s.Errors = append(s.Errors, err.Error())
		}
	})
}

// compare notes whether a volume's slots are as configured, and those of them
// that cannot be seen once the latch is closed.
func (n *Node) compare(name string, r *keys.Report, err error) {
	delete(n.inStep, name)
	if r == nil || err != nil {
		return
	}
	off := slices.DeleteFunc(slices.Clone(r.Slots), func(s keys.Result) bool { return !n.isOff(name, s) })
	if len(off) == 0 {
		n.inStep[name] = n.config
	}
	latched := func(s keys.Result) bool {
		return slices.ContainsFunc(n.config.encryption(name).Keys, func(k config.Key) bool { return k.Slot == s.Slot && hasLatch(k) })
	}
	if n.config.encryption(name) != nil && !slices.ContainsFunc(off, latched) {
		n.unlatched[name] = n.config
	}
}

// WriteTable writes the status for people.
func (s Status) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "node: %s", s.Phase)
	if s.Reason != "" {
		fmt.Fprintf(w, ": %s", s.Reason)
	}
	fmt.Fprintln(w)
	if s.Trial {
		fmt.Fprintln(w, "a configuration is on trial")
	}
	for _, notice := range s.Notices {
		fmt.Fprintf(w, "notice: %s\n", notice)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "VOLUME\tPHASE\tENCRYPTED\tSLOT\tKEYS\tMOUNTED\tDEVICE")
	for _, v := range s.Volumes {
		slot := "-"
		if v.Slot >= 0 {
			slot = fmt.Sprint(v.Slot)
		}
		encrypted := map[bool]string{true: "yes", false: "no"}[v.Encrypted]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Name, v.Phase, encrypted, slot, orDash(strings.Join(v.Kinds, ",")), orDash(v.Dir), orDash(v.Device))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, v := range s.Volumes {
		for _, p := range v.Pending {
			fmt.Fprintf(w, "%s: pending: %s\n", v.Name, p)
		}
		for _, slot := range v.Asking {
			fmt.Fprintf(w, "%s: slot %d: its key server has not answered yet\n", v.Name, slot)
		}
		for _, e := range v.Errors {
			fmt.Fprintf(w, "%s: %s\n", v.Name, strings.ReplaceAll(e, "\n", "\n  "))
		}
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
