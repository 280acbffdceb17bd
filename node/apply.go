package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cryptctl/cryptctl/keys"
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

// Apply brings a machine configuration to the node. There is one Apply at a time: it
// may wait for key servers, and another one is refused meanwhile. One that fails to
// store the configuration leaves what is in force, and a trial, as they are.
func (n *Node) Apply(ctx context.Context, text []byte, mode Mode) (*Applied, error) {
	return n.applyFor(ctx, text, mode, 0)
}

// applyFor is Apply with a time for a trial; 0 is that of the options.
func (n *Node) applyFor(ctx context.Context, text []byte, mode Mode, timeout time.Duration) (*Applied, error) {
	switch {
	case !slices.Contains([]Mode{Auto, NoReboot, Staged, Try}, mode):
		return nil, fmt.Errorf("mode %q: must be auto, no-reboot, staged or try", mode)
	case timeout != 0 && mode != Try, timeout < 0:
		return nil, fmt.Errorf("a timeout of %s in mode %s: it is how long mode try lasts, such as 1m", timeout, mode)
	case !n.applying.TryLock():
		return nil, fmt.Errorf("%w: another apply is in progress, which may wait for a key server; try again after it", ErrPhase)
	}
	defer n.applying.Unlock()
	ctx, end, err := n.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	m, err := n.readNew("the configuration", text)
	if err != nil {
		return nil, err
	}
	a := &Applied{Mode: mode}
	switch waiting := n.config == nil && (n.blank || n.state != nil); {
	case n.config != nil:
		a.Changes = n.diff(n.base(), m)
		err = n.apply(ctx, m, a, cmp.Or(timeout, n.opts.TryTimeout))
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

func (n *Node) apply(ctx context.Context, m *machine, a *Applied, timeout time.Duration) error {
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
		if err := n.noWayBack(m); err != nil {
			return err
		}
		return n.try(ctx, m, timeout)
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

// noWayBack names the volumes whose keys could not be taken back from a trial before
// the next boot; nil when there are none.
func (n *Node) noWayBack(m *machine) error {
	var all []string
	base := n.base()
	for _, e := range base.Volumes {
		if why := n.waits(m.encryption(e.Volume), &e); why != "" {
			all = append(all, e.Volume+": "+why)
		}
	}
	if all == nil {
		return nil
	}
	return fmt.Errorf("%w on trial, since it could not be taken back in this boot: %s; use mode auto or staged", ErrNeedsMore, strings.Join(all, "; "))
}

// stage stores a configuration for the next boot. That the headers still have
// the keys of the one in force is written down first.
func (n *Node) stage(m *machine) error {
	if err := n.store(m); err != nil {
		return err
	}
	err := n.keepTrial()
	n.pending()
	return err
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
	if err := n.store(m); err != nil {
		return err
	}
	return errors.Join(n.keepTrial(), n.activate(ctx, m, false, (*volume.Volume).Reconcile))
}

// activate gives all open volumes the keys of a configuration, and opens those
// that it adds. What cannot be done is in the error and the status.
func (n *Node) activate(ctx context.Context, m *machine, trial bool, sync reconciler) error {
	err := n.rekey(ctx, m, trial, sync)
	n.openOthers(ctx, m)
	n.syncOthers(ctx, sync)
	n.pending()
	n.settle()
	return err
}

// rekey makes a configuration the one in force, and gives all open volumes its keys.
func (n *Node) rekey(ctx context.Context, m *machine, trial bool, sync reconciler) error {
	before := n.config
	n.use(m)
	for _, name := range n.open() { // what is asked with other keys
		n.stopAsking(name)
	}
	var errs []error
	if n.toDo(stateName, before, m) {
		report, err := n.rekeyState(ctx, m.encryption(stateName), trial, sync)
		if report != nil || err != nil {
			n.reconciled(stateName, report, err)
		}
		errs = append(errs, err)
	} else if !trial {
		errs = append(errs, n.noteInStep())
	}
	errs = append(errs, n.needSalt(m))
	former := append(n.former(), before)
	for _, name := range mountOrder(n.volumes, false) {
		v, e := n.volumes[name], m.encryption(name)
		if e == nil || v.Spec.Encryption == nil || !n.toDo(name, before, m) {
			continue
		}
		errs = append(errs, n.rekeyOther(ctx, v, n.encryptionOf(m, name, former), sync))
	}
	return errors.Join(errs...)
}

// rekeyOther gives an open volume other than STATE its keys.
func (n *Node) rekeyOther(ctx context.Context, v *volume.Volume, e *volume.Encryption, sync reconciler) error {
	name := v.Spec.Name
	if err := n.before("slots of " + name); err != nil {
		return err
	}
	var report *keys.Report
	err := v.Reopen(ctx, e)
	if err == nil {
		if report, err = sync(v, ctx); err != nil {
			v.Release()
		}
	}
	n.reconciled(name, report, err)
	if err == nil && v.Locked == nil {
		err = n.files().record(name, v.Identity)
	}
	return err
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
	if n.inStep[name] == before && len(keyFields(name, before, m)) == 0 {
		n.inStep[name] = m
		return false
	}
	why := n.waits(old, want)
	if why == "" {
		return true
	}
	delete(n.inStep, name)
	n.waiting[name] = why
	return false
}
