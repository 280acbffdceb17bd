package mapping

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that callers act on.
var (
	// ErrNoDeviceMapper: the kernel cannot map anything. All else of this project
	// works without it.
	ErrNoDeviceMapper = errors.New("the kernel has no device-mapper or no dm-crypt: load the modules dm-mod and dm-crypt")
	// ErrNotOpen: no mapping has this name.
	ErrNotOpen = errors.New("not open")
	// ErrNameTaken: the name belongs to a mapping of something else.
	ErrNameTaken = errors.New("the name belongs to another mapping")
)

// Options says how a volume is mapped. Without more than the name it is mapped
// read-write, the key passes through the kernel keyring, and the persistent
// flags of the header apply.
type Options struct {
	Name string // of the mapping, below /dev/mapper
	// ReadOnly maps for reading only, as is done on a read-only device anyway.
	ReadOnly bool
	// Flags are added to those that the header makes persistent.
	Flags []Flag
	// NoKeyring puts the key into the table, where root can read it. It is what a
	// kernel without a keyring gets anyway.
	NoKeyring bool
}

// Mapping is an open volume.
type Mapping struct {
	Name      string `json:"name"`
	UUID      string `json:"uuid"`   // device-mapper UUID, "CRYPT-LUKS2-<volume>-<name>"; LUKS1 likewise
	Path      string `json:"path"`   // /dev/mapper/NAME
	Number    Number `json:"number"` // of the mapped device
	ReadOnly  bool   `json:"readOnly,omitempty"`
	Suspended bool   `json:"suspended,omitempty"` // every access waits
	Deferred  bool   `json:"deferred,omitempty"`  // closes when the last user leaves
	OpenCount int    `json:"openCount"`           // mounts, holders and open files
	Table     *Table `json:"table,omitempty"`     // nil for another target, or for none
	// Existing says that [Activate] found the mapping and changed nothing.
	Existing bool `json:"existing,omitempty"`
	// Dropped are flags that were asked for and that this kernel does not know.
	Dropped []Flag `json:"dropped,omitempty"`

	live bool // has a table
}

// BusyError says who keeps a mapping, or the device under one, in use.
type BusyError struct {
	What    string   // "mapping luks2-STATE", "/dev/sda5"
	Holders []string // "mounted on /var", "used by mapping data"; empty when nobody could be found
}

// Error names the holders.
func (e *BusyError) Error() string {
	if len(e.Holders) == 0 {
		return e.What + " is in use, and who uses it could not be found out"
	}
	return fmt.Sprintf("%s is in use: %s; release it first", e.What, strings.Join(e.Holders, ", "))
}

// CloseOptions says how a mapping is closed.
type CloseOptions struct {
	// Deferred closes a mapping that is in use when its last user leaves, and
	// takes the name away at once.
	Deferred bool
}

const (
	// nameRoom is what is left for the name in a device-mapper UUID: 129 bytes
	// with the NUL (linux/dm-ioctl.h, DM_UUID_LEN).
	nameRoom = 129 - 1 - len(luks2Prefix) - 32 - 1

	luks1Prefix = "CRYPT-LUKS1-"
	luks2Prefix = "CRYPT-LUKS2-"

	// nameBytes need no escape: what else a name contains, libdevmapper writes as
	// \x20 in some places (dm_task_set_name_mangling_mode).
	nameBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789#+-.:=@_"
)

func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || name == "control":
		return fmt.Errorf("%q cannot be the name of a mapping", name)
	case len(name) > nameRoom:
		return fmt.Errorf("mapping name of %d bytes: at most %d are possible", len(name), nameRoom)
	case strings.Trim(name, nameBytes) != "":
		return fmt.Errorf("mapping name %q: only letters, digits and #+-.:=@_ are possible", name)
	}
	return nil
}

// checkUUID refuses a volume's UUID that is none. It comes from a disk that
// anyone may have written, and a space in it would add words to the table.
func checkUUID(uuid string) error {
	parts := strings.Split(uuid, "-")
	ok := len(parts) == 5
	for i, n := range []int{8, 4, 4, 4, 12} {
		ok = ok && len(parts[i]) == n && strings.Trim(parts[i], "0123456789abcdefABCDEF") == ""
	}
	if !ok {
		return fmt.Errorf("the header's UUID %q is not of the form 8-4-4-4-12 hexadecimal digits", uuid)
	}
	return nil
}

// mappingUUID is the device-mapper UUID of a volume's mapping, as cryptsetup
// makes it.
func mappingUUID(prefix, uuid, name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	if err := checkUUID(uuid); err != nil {
		return "", err
	}
	return prefix + strings.ReplaceAll(uuid, "-", "") + "-" + name, nil
}
