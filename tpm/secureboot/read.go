package secureboot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Path is where Linux shows what EFI firmware left.
const Path = "/sys/firmware/efi"

// GUIDs of variables: EFI's own, and shim's.
const (
	global = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	shim   = "605dab50-e046-4300-abb6-3dd810dd8b23"
)

// Attributes of a variable (UEFI, 8.2).
const (
	nonVolatile = 0x1
	atRuntime   = 0x4
)

// ErrNotMounted says that the machine was started by EFI, and that the variables
// are not shown.
var ErrNotMounted = errors.New("the EFI variables are not shown: mount them with \"mount -t efivarfs efivarfs /sys/firmware/efi/efivars\"")

// Read returns the state below path, Path as a rule. A machine without EFI is
// not an error.
func Read(path string) (*State, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return &State{Firmware: NoEFI}, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading the state of Secure Boot: %w", err)
	}
	v := &variables{dir: filepath.Join(path, "efivars")}
	if err := v.mounted(); err != nil {
		return nil, fmt.Errorf("reading the state of Secure Boot: %w", err)
	}
	s := v.state()
	if v.err != nil {
		return nil, fmt.Errorf("reading the state of Secure Boot: %w", v.err)
	}
	return s, nil
}

// variables reads variables and keeps the first error.
type variables struct {
	dir string
	err error
}

// mounted makes sure that there are variables: every firmware has some.
func (v *variables) mounted() error {
	d, err := os.Open(v.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotMounted
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if _, err := d.Readdirnames(1); errors.Is(err, io.EOF) {
		return ErrNotMounted
	} else if err != nil {
		return err
	}
	return nil
}

func (v *variables) state() *State {
	on, attributes, known := v.flag("SecureBoot", global)
	setup, _, hasSetup := v.flag("SetupMode", global)
	audit, _, _ := v.flag("AuditMode", global)
	deployed, _, _ := v.flag("DeployedMode", global)
	shimOff, shimAttributes, _ := v.flag("MokSBStateRT", shim)
	if !known {
		return &State{Firmware: NoSecureBoot}
	}
	s := &State{Firmware: SecureBoot, On: on, Mode: ModeUser}
	switch {
	case audit:
		s.Mode = ModeAudit
	case setup:
		s.Mode = ModeSetup
	case deployed:
		s.Mode = ModeDeployed
	}
	// An operating system can store variables, and then they are non-volatile.
	s.ShimOff = shimOff && shimAttributes&nonVolatile == 0
	if attributes&nonVolatile != 0 || attributes&atRuntime == 0 {
		s.doubt(fmt.Sprintf("the variable SecureBoot has the attributes %#x: it is not one that only firmware can make", attributes))
	}
	if !hasSetup {
		s.doubt("there is a variable SecureBoot and none that is called SetupMode")
	}
	if on && (setup || audit) {
		s.doubt(fmt.Sprintf("the firmware says that it is on, and in %s mode, in which it cannot be on", s.Mode))
	}
	if setup && deployed {
		s.doubt("the firmware says that it is in setup mode and in deployed mode")
	}
	return s
}

func (s *State) doubt(why string) { s.Doubts = append(s.Doubts, why) }

// flag reads a variable of one byte, 0 or 1, and says whether it is there.
func (v *variables) flag(name, vendor string) (on bool, attributes uint32, there bool) {
	if v.err != nil {
		return false, 0, false
	}
	b, err := readShort(filepath.Join(v.dir, name+"-"+vendor))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, 0, false
	case err != nil:
		v.err = err
		return false, 0, false
	case len(b) != 5 || b[4] > 1:
		v.err = fmt.Errorf("the EFI variable %s is %x: expected are 4 bytes of attributes and 0 or 1", name, b)
		return false, 0, false
	}
	return b[4] == 1, binary.LittleEndian.Uint32(b), true
}

// readShort reads the begin of a file: all of it, if it is as short as it should
// be.
func readShort(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 16))
	if err != nil {
		return nil, err
	}
	return b, nil
}
