package node

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/provide"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/volume"
)

// Options says what a node is made of. System is needed, the rest has defaults.
type Options struct {
	System volume.System
	Root   string // goes before every mount point
	// Machine is what keys depend on: the node's UUID, by default what the firmware
	// says, and overridden by META's; the TPM; who is asked for a PIN.
	Machine provide.Machine
	// Config is a machine configuration for a node that has none: it is applied
	// when the first boot finds STATE empty.
	Config []byte
	Keys   keys.Options // costs, limits, policy and log of all volumes
	// TryTimeout is after how long an Apply in mode Try is taken back, unless it
	// brings a time of its own; default one minute.
	TryTimeout time.Duration
	// Accept names volumes that are taken for what they are although they are not
	// those that were recorded, such as "EPHEMERAL".
	Accept []string
	// Reboot is called when an operation asks for it and all is on the disk.
	Reboot func()
	// Phase is called when the node's phase changes, in the middle of a flow: it
	// must not call one.
	Phase func(Phase, string)
	// Configured is called when a configuration comes into force, on trial too, in
	// the middle of a flow as well. Its secrets are wiped some time later.
	Configured func(*config.Config)
}

// Phase is how far a node has come.
type Phase string

// Phases.
const (
	Booting     Phase = "booting"
	Maintenance Phase = "maintenance" // there is no configuration: waiting for Apply
	Running     Phase = "running"
	Failed      Phase = "failed" // STATE did not open
)

// isClosed is the reason of Booting for a node that was closed.
const isClosed = "closed"

// Errors of operations.
var (
	// ErrPhase: the node is not in a phase in which this is possible.
	ErrPhase = errors.New("not possible now")
	// ErrNeedsMore: the change does not take effect at once, as the mode asks.
	ErrNeedsMore = errors.New("the change cannot take effect now")
)

// Node is a machine's volumes. Its methods may be called from several
// goroutines; they run one after the other, but for Status.
type Node struct {
	opts Options
	log  *slog.Logger

	turns    *turns     // of the flows
	applying sync.Mutex // held by Apply, from before its turn

	meta    string // device of META
	uuid    string
	config  *machine            // in force; nil in maintenance
	blank   bool                // STATE was proven empty
	inStep  map[string]*machine // by volume, the configuration that its header has the keys of
	state   *volume.Volume
	volumes map[string]*volume.Volume // all open ones but STATE
	reports map[string]*keys.Report   // of the last reconciliation of each volume
	salt    *secret.Bytes
	trial   *trial
	waiting map[string]string // by volume, why its slots get their keys on the next boot only
	latched bool              // until the next boot, the TPM unseals no key that has a latch

	// asking are the volumes whose remote keys were not waited for; see finish.
	asking map[string]bool
	// unlatched is by volume the configuration under which all its keys with a latch
	// were seen to be in step, in this boot.
	unlatched map[string]*machine
	// interrupt ends what goes on in the background, and waits for that.
	interrupt func()

	// used are configurations that were read; the flow's end wipes those that are
	// not in force.
	used []*machine

	view view
	cut  func(step string) error // of tests: cuts the power before a write
}

// before is called before each write that must last.
func (n *Node) before(step string) error {
	if n.cut == nil {
		return nil
	}
	return n.cut(step)
}

// New returns a node that is not booted yet.
func New(opts Options) *Node {
	if opts.TryTimeout == 0 {
		opts.TryTimeout = time.Minute
	}
	if opts.Machine.UUID == "" {
		opts.Machine.UUID = provide.FirmwareUUID()
	}
	if opts.Machine.TPM == nil {
		opts.Machine.TPM = tpm.System() // one, whose users take turns
	}
	if opts.Keys.Log == nil {
		opts.Keys.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{opts: opts, log: opts.Keys.Log, volumes: map[string]*volume.Volume{}, inStep: map[string]*machine{}, reports: map[string]*keys.Report{}, waiting: map[string]string{}}
	n.asking, n.unlatched, n.interrupt = map[string]bool{}, map[string]*machine{}, func() {}
	n.turns = newTurns()
	n.view.status.Phase = Booting
	return n
}

// Close takes back what is on trial, unmounts and closes all volumes. It ends what
// the node is doing, such as an Apply that waits for a key server: what is being
// written is written, and the next Boot sees to the rest.
func (n *Node) Close(ctx context.Context) error {
	done, err := n.turns.takeLast(ctx)
	if err != nil {
		return err
	}
	defer n.end(done)
	n.interrupt()
	errs := []error{n.revertLocally(ctx)}
	for _, name := range mountOrder(n.volumes, true) {
		errs = append(errs, n.closeVolume(name))
	}
	if n.state != nil {
		errs = append(errs, n.closeVolume(stateName))
	}
	if n.state == nil {
		n.phase(Booting, isClosed)
	}
	return errors.Join(errs...)
}

// closeVolume closes one volume, STATE included.
func (n *Node) closeVolume(name string) error {
	v := n.volumeOf(name)
	if v == nil {
		return nil
	}
	mounted := v.Dir() != ""
	err := v.Close()
	if err != nil && (v.Dir() != "" || !mounted) {
		return err
	}
	// Unmounted is closed, even if the mapping stays for now: what lies in the
	// volume's directory is not the volume's any more.
	n.view.volume(name, func(s *VolumeStatus) { s.Phase, s.Dir = VolumeClosed, "" })
	delete(n.inStep, name)
	delete(n.unlatched, name)
	delete(n.reports, name)
	delete(n.waiting, name)
	n.stopAsking(name)
	if delete(n.volumes, name); name == stateName {
		n.state, n.config = nil, nil
		n.endTrial() // of which nothing can be taken back any more
		n.salt.Wipe()
		n.salt = nil
	}
	return err
}

// release gives up all secrets but those of the configurations in force and before
// a trial, and of volumes whose key servers are still asked.
func (n *Node) release() {
	for _, name := range n.open() {
		if !n.asking[name] || n.config == nil {
			n.stopAsking(name)
			n.volumeOf(name).Release()
		}
	}
	n.used = slices.DeleteFunc(n.used, func(m *machine) bool {
		if m == n.config || n.trial != nil && m == n.trial.before {
			return false
		}
		m.wipe()
		return true
	})
}

// open are the names of all open volumes, STATE first and then as they are mounted.
func (n *Node) open() []string {
	names := mountOrder(n.volumes, false)
	if n.state != nil {
		names = append([]string{stateName}, names...)
	}
	return names
}

// volumeOf returns an open volume, STATE included; nil when it is not open.
func (n *Node) volumeOf(name string) *volume.Volume {
	if name == stateName {
		return n.state
	}
	return n.volumes[name]
}

// read reads a stored configuration, whose secrets live until a flow ends that does
// not leave it in force.
func (n *Node) read(name string, text []byte) (*machine, error) {
	return n.keep(parseMachine(name, text, false))
}

// readNew is read for a configuration that was not in force yet.
func (n *Node) readNew(name string, text []byte) (*machine, error) {
	return n.keep(parseMachine(name, text, true))
}

func (n *Node) keep(m *machine, err error) (*machine, error) {
	if err == nil {
		n.used = append(n.used, m)
	}
	return m, err
}

func (n *Node) opener() *volume.Opener {
	return &volume.Opener{System: n.opts.System, Keys: n.opts.Keys}
}

// use makes a configuration the one in force.
func (n *Node) use(m *machine) {
	n.config = m
	n.leftOut(m)
	if n.opts.Configured != nil {
		n.opts.Configured(m.Config)
	}
}

// machine is what providers depend on.
func (n *Node) machine() provide.Machine {
	m := n.opts.Machine
	m.UUID, m.Salt, m.NoSalt = n.uuid, n.salt, "STATE is not open"
	return m
}

const stateName, ephemeralName, metaName = "STATE", "EPHEMERAL", "META"

// mountPoints are those of Talos.
func (n *Node) mountPoint(name string) string {
	dir := map[string]string{
		stateName: "/system/state", ephemeralName: "/var", "IMAGECACHE": "/system/imagecache", "ETCD": "/var/lib/etcd",
		"CRI": "/var/lib/containerd", "KUBELET": "/var/lib/kubelet", "LOG": "/var/log",
	}[name]
	if user, ok := strings.CutPrefix(name, "u-"); ok {
		dir = "/var/mnt/" + user
	}
	if dir == "" {
		return ""
	}
	return filepath.Join("/", n.opts.Root, dir)
}
