// Package wire is what a test says to the guest program in a virtual machine,
// and what it hears back: one JSON object in a line, over a virtio serial port.
//
//	host ──{"id":7,"act":"run","args":{"argv":["dmsetup","table"]}}──> guest
//	host <──{"id":7,"result":{"code":0,"out":"..."}}────────────────── guest
//
// Calls run side by side; a call that never ends (the machine was killed) has no
// reply. The guest's first line, with the id 0, says that it is ready.
package wire

import (
	"encoding/json"

	"github.com/cryptctl/cryptctl/mapping"
)

// Port is the name of the serial port.
const Port = "cryptctl.agent"

// ModuleList is the file in the initramfs that lists the kernel modules in the
// order in which they load.
const ModuleList = "/modules/order"

// Call asks for an act.
type Call struct {
	ID   int             `json:"id"`
	Act  string          `json:"act"`
	Args json.RawMessage `json:"args,omitempty"`
}

// Reply answers the call with the same id.
type Reply struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
	Kind   Kind            `json:"kind,omitempty"` // of the error
}

// Kind names the errors that tests tell apart.
type Kind string

// Kinds of errors.
const (
	NotOpen        Kind = "not-open"
	NameTaken      Kind = "name-taken"
	Busy           Kind = "busy"
	NoDeviceMapper Kind = "no-device-mapper"
	NotThere       Kind = "not-there" // no such file
	// Others are reasons of package tpm, as they are.
)

// Run runs a program to its end.
type Run struct {
	Argv  []string `json:"argv"`
	Stdin string   `json:"stdin,omitempty"`
}

// Ran is how a program ended.
type Ran struct {
	Code int    `json:"code"` // -1: by a signal
	Out  string `json:"out"`
	Err  string `json:"err,omitempty"` // what it printed on standard error
}

// File is a file, its path in the machine.
type File struct {
	Path    string `json:"path"`
	Content []byte `json:"content,omitempty"`
}

// Span is a part of a file or device.
type Span struct {
	Path    string `json:"path"`
	Offset  int64  `json:"offset"`
	Length  int    `json:"length,omitempty"`  // to read
	Content []byte `json:"content,omitempty"` // to write, or what was read
}

// Stat is what a path leads to.
type Stat struct {
	Link   string         `json:"link,omitempty"`   // target, when it is a link
	Device mapping.Number `json:"device,omitempty"` // of a block or character device
	Size   int64          `json:"size,omitempty"`   // of a file or block device
}

// Mount is a mount, or with an empty source what is to be unmounted.
type Mount struct {
	Source string `json:"source,omitempty"`
	Target string `json:"target"`
	Type   string `json:"type,omitempty"`
	Lazy   bool   `json:"lazy,omitempty"`
}

// Format makes a LUKS2 volume with one cheap keyslot.
type Format struct {
	Device     string   `json:"device"` // of the header
	Detached   bool     `json:"detached,omitempty"`
	Passphrase string   `json:"passphrase"`
	UUID       string   `json:"uuid,omitempty"`
	Cipher     string   `json:"cipher,omitempty"`
	SectorSize int      `json:"sectorSize,omitempty"`
	KeySize    int      `json:"keySize,omitempty"` // bytes
	Flags      []string `json:"flags,omitempty"`   // persistent, as the header spells them
}

// Activate unlocks a volume and maps it.
type Activate struct {
	Device     string          `json:"device"`
	Header     string          `json:"header,omitempty"` // detached
	KeyOf      string          `json:"keyOf,omitempty"`  // another volume, whose key is used instead
	Passphrase string          `json:"passphrase"`
	Options    mapping.Options `json:"options"`
}

// Mapping names a mapping, for acts that need no key.
type Mapping struct {
	Name     string `json:"name"`
	Device   string `json:"device,omitempty"` // whose header it shall be of
	Deferred bool   `json:"deferred,omitempty"`
}

// Key names a kernel key.
type Key struct {
	Type        string `json:"type"`
	Description string `json:"description"`
}

// Extend extends a PCR with the hash of an event.
type Extend struct {
	PCR   int    `json:"pcr"`
	Event []byte `json:"event"`
}

// Unseal asks for what the TPM has sealed for a slot.
type Unseal struct {
	Device string `json:"device"` // of the header
	Volume string `json:"volume"` // its name, which a token is bound to
	Slot   int    `json:"slot"`
}

// Unsealed is a slot's passphrase, and what the TPM itself gave.
type Unsealed struct {
	Passphrase []byte `json:"passphrase"`
	Sealed     []byte `json:"sealed"`
}

// Seal makes a LUKS2 volume with one slot that the TPM opens, slot 0.
type Seal struct {
	Device string `json:"device"`
	Format string `json:"format"` // of the token, as package tpm calls it
	PCRs   []int  `json:"pcrs"`
}
