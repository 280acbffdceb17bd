package mapping

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/secret"
)

// Activate maps the data that begins on device, which the caller has open, but
// not exclusively: the kernel claims it for the mapping. With a detached header
// it is the data device, otherwise the one that the header was read from.
//
// When the volume is mapped under that name already, Activate changes nothing
// and returns the mapping with Existing set; a deferred close is taken back. A
// name that belongs to anything else gives [ErrNameTaken], a device that others
// use a [BusyError], and a kernel that cannot do it [ErrNoDeviceMapper]. Data
// that would lie over its own header is refused.
//
// The key must be one that the header confirmed ([luks.Header.Confirmed]); that
// it is one costs no derivation.
func Activate(h *luks.Header, key *luks.VolumeKey, device *os.File, opts Options) (*Mapping, error) {
	m, err := activate(h, key, device, opts)
	if err != nil {
		return nil, fmt.Errorf("map %s as %s: %w", device.Name(), opts.Name, err)
	}
	return m, nil
}

func activate(h *luks.Header, key *luks.VolumeKey, device *os.File, opts Options) (*Mapping, error) {
	dev, err := inspect(device)
	if err != nil {
		return nil, err
	}
	t, err := NewTable(h, key.Bytes().Len(), dev, opts)
	if err != nil {
		return nil, err
	}
	uuid, err := mappingUUID(luks2Prefix, h.UUID(), opts.Name)
	if err != nil {
		return nil, err
	}
	if !h.Confirmed(key) { // it would map noise
		return nil, errors.New("this is not the key of the volume")
	}
	if err := checkOverlap(h, device, dev.Size); err != nil {
		return nil, err
	}
	a := &activation{name: opts.Name, uuid: uuid, table: t, readOnly: opts.ReadOnly || dev.ReadOnly}
	return a.open(device, dev.Number, key.Bytes())
}

// activation is one mapping on its way.
type activation struct {
	*control
	name, uuid string
	table      *Table
	readOnly   bool
}

// open returns the mapping that is there, or makes it.
func (a *activation) open(device *os.File, number Number, key *secret.Bytes) (_ *Mapping, err error) {
	if a.control, err = dial(); err != nil {
		return nil, err
	}
	defer a.close()
	if m, err := a.existing(); m != nil || err != nil {
		return m, err
	}
	if err := claimable(device, number); err != nil {
		return nil, err
	}
	version, err := a.version()
	if err != nil {
		return nil, err
	}
	dropped := a.table.drop(version)
	m, err := a.run(key)
	if err != nil {
		return nil, err
	}
	m.Dropped = dropped
	return m, nil
}

// existing returns the volume's mapping when it is there, and nil when there is
// none.
func (a *activation) existing() (*Mapping, error) {
	m, err := a.status(a.name)
	switch {
	case errors.Is(err, ErrNotOpen):
		return nil, nil
	case err != nil:
		return nil, err
	case m.UUID != a.uuid:
		return nil, fmt.Errorf("%w, with the UUID %s", ErrNameTaken, m.UUID)
	case !m.live:
		// Its maker was killed before it had a table: nobody has data in it.
		if err := a.remove(a.name, 0); err != nil {
			return nil, fmt.Errorf("remove the unfinished device of an earlier attempt: %w", err)
		}
		return nil, nil
	case m.Table == nil:
		return nil, fmt.Errorf("%w: its table is not one of dm-crypt alone", ErrNameTaken)
	case !m.Table.sameVolume(a.table):
		return nil, fmt.Errorf("%w, of a volume with the same UUID: it is %s, and ours would be %s", ErrNameTaken, m.Table, a.table)
	case m.Suspended:
		return nil, errors.New("the volume is mapped and suspended, so that every access waits; cryptsetup luksResume ends that")
	case m.ReadOnly != a.readOnly:
		return nil, fmt.Errorf("the volume is mapped already, %s; close it first", map[bool]string{true: "read-only", false: "for writing"}[m.ReadOnly])
	}
	if m.Deferred {
		if err := a.cancelDeferred(a.name); err != nil {
			return nil, fmt.Errorf("take back the deferred close: %w", err)
		}
		m.Deferred = false
	}
	m.Existing = true
	return m, makeNodes(m.Name, m.Number)
}

// run creates the device, loads its table, makes it live and gives it a node. On
// failure all of it goes again.
func (a *activation) run(key *secret.Bytes) (_ *Mapping, err error) {
	number, err := a.create(a.name, a.uuid)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%w, which another process makes just now", ErrNameTaken)
	} else if err != nil {
		return nil, fmt.Errorf("create the device: %w", err)
	}
	defer func() {
		if err == nil {
			return
		}
		if left := a.remove(a.name, 0); left != nil {
			err = errors.Join(err, fmt.Errorf("remove the unfinished device: %w", left))
		}
		removeNode(a.name)
	}()
	if err := a.loadTable(key); err != nil {
		return nil, a.explain(err)
	}
	if err := a.resume(a.name); err != nil {
		return nil, fmt.Errorf("make the table live: %w", err)
	}
	if err := makeNodes(a.name, number); err != nil {
		return nil, err
	}
	return a.status(a.name)
}

// loadTable hands the table over, and the key by the keyring or, when that is
// not wanted or the kernel has none, in the table.
func (a *activation) loadTable(key *secret.Bytes) error {
	if a.table.Key != "" {
		err := withKey(a.table.Key, key, func() error { return a.load(a.name, a.table, nil, a.readOnly) })
		if !errors.Is(err, errNoKeyring) {
			return err
		}
		a.table.Key = ""
	}
	return a.load(a.name, a.table, key.Bytes(), a.readOnly)
}

// explain says what the kernel's answer to a table means. It has the details in
// its log only.
func (a *activation) explain(err error) error {
	switch err = fmt.Errorf("load the table: %w", err); {
	case errors.Is(err, unix.ENOENT): // not wrapped: to callers ENOENT is a missing file
		return fmt.Errorf("%v: the kernel does not know the cipher %s; load its modules", err, a.table.Cipher)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w", err, &BusyError{"device " + a.table.Device.String(), holders(a.table.Device)})
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w; the kernel log (dmesg) says why", err)
	}
	return err
}
