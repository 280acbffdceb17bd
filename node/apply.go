package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/volume"
)

// Mode says when a configuration takes effect.
type Mode string

// Modes, those of talosctl apply-config.
const (
	Auto     Mode = "auto"      // at once, or else with a reboot
	NoReboot Mode = "no-reboot" // at once, or not at all
	Staged   Mode = "staged"    // on the next boot
	Try      Mode = "try"       // at once, and taken back unless another Apply follows
)

// Applied says what became of a configuration.
type Applied struct {
	Mode    Mode         `json:"mode"`
	Changes []Difference `json:"changes"`
	// Reboot says that the node has to be rebooted for all of it to take effect;
	// in mode Auto it is.
	Reboot bool   `json:"reboot,omitempty"`
	Status Status `json:"status"` // afterwards
}

// Apply brings a machine configuration to the node.
func (n *Node) Apply(ctx context.Context, text []byte, mode Mode) (*Applied, error) {
	if !slices.Contains([]Mode{Auto, NoReboot, Staged, Try}, mode) {
		return nil, fmt.Errorf("mode %q: must be auto, no-reboot, staged or try", mode)
	}
	defer n.begin()()
	m, err := n.read("the configuration", text)
	if err != nil {
		return nil, err
	}
	a := &Applied{Mode: mode}
	switch waiting := n.config == nil && (n.blank || n.state != nil); {
	case n.config != nil:
		a.Changes = n.diff(n.base(), m)
		err = n.apply(ctx, m, a)
	case waiting && (mode == Auto || mode == NoReboot):
		if err = n.install(ctx, text); err != nil {
			n.phase(Maintenance, err.Error())
		}
		n.finish(ctx) // who brings a configuration wants to know what became of it
	default:
		return nil, fmt.Errorf("%w: the node is in phase %s; mode auto brings a configuration to a node in maintenance", ErrPhase, n.Status().Phase)
	}
	a.Status = n.Status()
	return a, err
}

// base is the configuration that a new one is compared with: a trial ends with
// every Apply.
func (n *Node) base() *machine {
	if n.trial != nil {
		return n.trial.before
	}
	return n.config
}

func (n *Node) apply(ctx context.Context, m *machine, a *Applied) error {
	if a.Mode == Staged {
		for i, d := range a.Changes {
			a.Changes[i] = d.staged()
		}
		return n.stage(m)
	}
	if err := inTheWay(a.Changes, a.Mode); err != nil {
		return err
	}
	if a.Mode == Try {
		return n.try(ctx, m)
	}
	a.Reboot = slices.ContainsFunc(a.Changes, func(d Difference) bool { return d.When == NextBoot })
	return n.enforce(ctx, m)
}

// inTheWay names all changes that do not take effect as a mode asks; nil when there
// are none.
func inTheWay(changes []Difference, mode Mode) error {
	var all []string
	fix := "use mode auto or staged"
	for _, d := range changes {
		if d.When == Wipe {
			fix = "apply it in mode staged, then reset the volume"
		}
		if d.When == Wipe || d.When == NextBoot && mode != Auto {
			all = append(all, d.String())
		}
	}
	if all == nil {
		return nil
	}
	return fmt.Errorf("%w: %s; %s", ErrNeedsMore, strings.Join(all, "; "), fix)
}

// stage stores a configuration for the next boot. That the headers still have
// the keys of the one in force is written down first.
func (n *Node) stage(m *machine) error {
	n.endTrial()
	if err := n.store(m); err != nil {
		return err
	}
	for _, name := range append(n.base().names(), stateName) {
		n.pending(name, m)
	}
	return nil
}

// store makes a configuration the one of the next boot.
func (n *Node) store(m *machine) error {
	f := n.files()
	stored, err := f.config(n.read)
	if err != nil {
		n.notice("the stored machine configuration cannot be read and is set aside: %v", err)
		if err := f.setAside(); err != nil {
			return err
		}
	}
	for _, former := range []*machine{stored, n.config} {
		if former == nil || former.text.Equal(m.text) {
			continue
		}
		if err := f.keepFormer(former); err != nil {
			return err
		}
	}
	return f.write(configFile, m.text.Bytes())
}

// enforce stores a configuration and makes it the one in force.
func (n *Node) enforce(ctx context.Context, m *machine) error {
	n.endTrial()
	if err := n.store(m); err != nil {
		return err
	}
	return n.activate(ctx, m, false)
}

// activate gives all open volumes the keys of a configuration, and opens those
// that it adds. What cannot be done is in the error and the status.
func (n *Node) activate(ctx context.Context, m *machine, trial bool) error {
	before := n.config
	n.use(m)
	for _, name := range n.open() { // what is asked with other keys
		n.stopAsking(name)
	}
	var errs []error
	if n.toDo(stateName, before, m) {
		report, err := n.rekeyState(ctx, m.encryption(stateName), trial, (*volume.Volume).Reconcile)
		if report != nil || err != nil {
			n.reconciled(stateName, report, err)
		}
		errs = append(errs, err)
	}
	errs = append(errs, n.needSalt(m))
	former := append(n.files().former(n.read), before)
	for _, name := range mountOrder(n.volumes, false) {
		v, e := n.volumes[name], m.encryption(name)
		if e == nil || v.Spec.Encryption == nil || !n.toDo(name, before, m) {
			continue
		}
		if err := n.before("slots of " + name); err != nil {
			return err
		}
		report, err := v.Rekey(ctx, n.encryptionOf(m, name, former))
		n.reconciled(name, report, err)
		if err == nil && v.Locked == nil {
			err = n.files().record(name, v.Identity)
		}
		errs = append(errs, err)
	}
	n.openOthers(ctx, m)
	n.syncOthers(ctx, (*volume.Volume).Reconcile)
	for _, name := range append(m.names(), stateName) {
		n.pending(name, m)
	}
	n.settle()
	return errors.Join(errs...)
}

// toDo reports whether a volume's slots are to be given the keys of a
// configuration now: not when they have them, nor when that must wait.
func (n *Node) toDo(name string, before, m *machine) bool {
	if before == nil {
		return true
	}
	old, want := before.encryption(name), m.encryption(name)
	if old == nil || want == nil {
		return true
	}
	if n.inStep[name] == before && sameKeyList(old, want) {
		n.inStep[name] = m
		return false
	}
	if n.waits(old, want) == "" {
		return true
	}
	delete(n.inStep, name)
	return false
}

// trial is a configuration that is taken back unless another one comes.
type trial struct {
	before *machine
	timer  *time.Timer
}

// try makes a configuration the one in force, but not that of the next boot.
// Its keys are written down, since the headers get them.
func (n *Node) try(ctx context.Context, m *machine) error {
	before := n.base()
	n.endTrial()
	if err := n.files().keepFormer(m); err != nil {
		return err
	}
	t := &trial{before: before}
	n.trial = t
	n.setTrial(true)
	err := n.activate(ctx, m, true)
	t.timer = time.AfterFunc(n.opts.TryTimeout, func() {
		defer n.begin()()
		if n.trial != t {
			return // another Apply came first
		}
		if err := n.revert(context.Background()); err != nil {
			n.notice("taking the configuration on trial back: %v", err)
		}
	})
	return err
}

// revert takes a configuration on trial back. Until the slots have their keys again
// the status shows the trial.
func (n *Node) revert(ctx context.Context) error {
	if n.trial == nil {
		return nil
	}
	before := n.trial.before
	n.trial.timer.Stop()
	n.trial = nil
	defer n.setTrial(false)
	n.log.Info("the configuration on trial is taken back")
	return n.activate(ctx, before, false)
}

// endTrial lets what is on trial stay until another configuration is in force.
func (n *Node) endTrial() {
	if n.trial != nil {
		n.trial.timer.Stop()
		n.trial = nil
		n.setTrial(false)
	}
}

func (n *Node) setTrial(on bool) {
	n.view.mu.Lock()
	n.view.status.Trial = on
	n.view.mu.Unlock()
}

// pending shows what a configuration wants of a volume and it has not got.
func (n *Node) pending(name string, m *machine) {
	var texts []string
	for _, d := range n.diff(n.config, m) {
		if d.Volume == name {
			d = d.staged()
			texts = append(texts, fmt.Sprintf("%s (%s)", d.What, d.When))
		}
	}
	v := n.volumeOf(name)
	if v != nil && (v.Spec.Encryption != nil) != (m.encryption(name) != nil) && len(texts) == 0 {
		texts = append(texts, encryptedText(m.encryption(name))+" (wipe)")
	}
	n.view.volume(name, func(s *VolumeStatus) { s.Pending = texts })
}

func encryptedText(e *config.Encryption) string {
	if e == nil {
		return "to be plain"
	}
	return "to be encrypted"
}
