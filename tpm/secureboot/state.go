package secureboot

import "fmt"

// Firmware says what kind of firmware started the machine, by what Linux shows.
type Firmware string

// Kinds of firmware.
const (
	// NoEFI: a BIOS, a boot loader or a hypervisor started the kernel directly.
	NoEFI Firmware = "no EFI"
	// NoSecureBoot: EFI firmware that does not know Secure Boot.
	NoSecureBoot Firmware = "EFI without Secure Boot"
	// SecureBoot: EFI firmware with Secure Boot, on or off.
	SecureBoot Firmware = "EFI with Secure Boot"
)

// Mode is one of the four that the firmware can be in.
type Mode string

// Modes (UEFI, figure 32-4).
const (
	ModeUser     Mode = "user"     // keys are enrolled
	ModeDeployed Mode = "deployed" // keys are enrolled, and the mode cannot be left by software
	ModeSetup    Mode = "setup"    // there is no platform key: anyone can enroll keys
	ModeAudit    Mode = "audit"    // as setup, and images that fail verification are started and recorded
)

// State is what the firmware says of Secure Boot. The zero value is no EFI.
type State struct {
	Firmware Firmware
	// On says that the firmware verified what it started.
	On bool
	// Mode is set with firmware that knows Secure Boot.
	Mode Mode
	// ShimOff says that shim was told not to verify what it starts (mokutil
	// --disable-validation): behind shim, nothing is verified.
	ShimOff bool
	// Doubts are reasons not to believe the variables.
	Doubts []string
}

// Enforced says whether the system can count on Secure Boot: it is on, in user
// or deployed mode, shim does not undo it, and there is no doubt.
func (s *State) Enforced() bool {
	return s.On && (s.Mode == ModeUser || s.Mode == ModeDeployed) && !s.ShimOff && len(s.Doubts) == 0
}

// String says in words how it stands, and what to do if it is not enforced.
func (s *State) String() string {
	switch {
	case s.Firmware == NoEFI || s.Firmware == "":
		return "not available: the machine was not started by EFI firmware"
	case s.Firmware == NoSecureBoot:
		return "not available: the EFI firmware does not know Secure Boot"
	case s.On && len(s.Doubts) > 0:
		return "in doubt: " + s.Doubts[0]
	case s.On && s.ShimOff:
		return "undone: the firmware verifies shim, which was told to verify nothing; turn that on with mokutil --enable-validation"
	case s.On:
		return fmt.Sprintf("on (%s mode)", s.Mode)
	case s.Mode == ModeSetup || s.Mode == ModeAudit:
		return fmt.Sprintf("off (%s mode): no platform key is enrolled; enroll keys in the firmware's setup", s.Mode)
	}
	return fmt.Sprintf("off (%s mode): keys are enrolled; turn it on in the firmware's setup", s.Mode)
}
