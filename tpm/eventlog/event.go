package eventlog

import (
	"bytes"
	"fmt"

	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// Event is one entry of a log.
type Event struct {
	Number  int    // its place in the log; 0 is the header
	PCR     uint32 // 0 to 23; others occur with EvNoAction
	Type    Type
	Digests []Digest // one for each bank, none in the header
	Data    []byte   // what the specification calls the event

	narrow bool // addresses of the firmware have 32 bits
}

// Digest is what an event extended into one bank.
type Digest struct {
	Bank pcr.Bank
	Sum  []byte
}

// Digest returns the digest of a bank, nil if the event has none.
func (e *Event) Digest(bank pcr.Bank) []byte {
	for _, d := range e.Digests {
		if d.Bank == bank {
			return d.Sum
		}
	}
	return nil
}

// Extends says whether an event changed its PCR: those of type EvNoAction are
// notes.
func (e *Event) Extends() bool { return e.Type != EvNoAction }

// dataMatches says whether a digest of the event is that of b. Every digest in
// a bank that is known here must agree.
func (e *Event) dataMatches(b []byte) bool {
	known := false
	for _, d := range e.Digests {
		if !d.Bank.Known() {
			continue
		}
		if known = true; !bytes.Equal(d.Bank.Sum(b), d.Sum) {
			return false
		}
	}
	return known
}

// Type says what an event is about.
type Type uint32

// Types of events (PC Client Platform Firmware Profile, 10.4.1).
const (
	EvPrebootCert        Type = 0x00
	EvPostCode           Type = 0x01
	EvNoAction           Type = 0x03
	EvSeparator          Type = 0x04
	EvAction             Type = 0x05
	EvEventTag           Type = 0x06
	EvSCRTMContents      Type = 0x07
	EvSCRTMVersion       Type = 0x08
	EvCPUMicrocode       Type = 0x09
	EvPlatformConfig     Type = 0x0a
	EvTableOfDevices     Type = 0x0b
	EvCompactHash        Type = 0x0c
	EvIPL                Type = 0x0d
	EvIPLPartitionData   Type = 0x0e
	EvNonhostCode        Type = 0x0f
	EvNonhostConfig      Type = 0x10
	EvNonhostInfo        Type = 0x11
	EvOmitBootDevice     Type = 0x12
	EvVariableConfig     Type = 0x80000001
	EvVariableBoot       Type = 0x80000002
	EvBootApplication    Type = 0x80000003
	EvBootDriver         Type = 0x80000004
	EvRuntimeDriver      Type = 0x80000005
	EvGPT                Type = 0x80000006
	EvEFIAction          Type = 0x80000007
	EvFirmwareBlob       Type = 0x80000008
	EvHandoffTables      Type = 0x80000009
	EvFirmwareBlob2      Type = 0x8000000a
	EvHandoffTables2     Type = 0x8000000b
	EvVariableBoot2      Type = 0x8000000c
	EvGPT2               Type = 0x8000000d
	EvHCRTM              Type = 0x80000010
	EvVariableAuthority  Type = 0x800000e0
	EvSPDMFirmwareBlob   Type = 0x800000e1
	EvSPDMFirmwareConfig Type = 0x800000e2
	EvSPDMPolicy         Type = 0x800000e3
	EvSPDMAuthority      Type = 0x800000e4
)

// String returns the specification's name of a type.
func (t Type) String() string {
	if name := t.efiName(); name != "" {
		return name
	}
	names := [...]string{
		"EV_PREBOOT_CERT", "EV_POST_CODE", "EV_UNUSED", "EV_NO_ACTION", "EV_SEPARATOR", "EV_ACTION", "EV_EVENT_TAG",
		"EV_S_CRTM_CONTENTS", "EV_S_CRTM_VERSION", "EV_CPU_MICROCODE", "EV_PLATFORM_CONFIG_FLAGS", "EV_TABLE_OF_DEVICES",
		"EV_COMPACT_HASH", "EV_IPL", "EV_IPL_PARTITION_DATA", "EV_NONHOST_CODE", "EV_NONHOST_CONFIG", "EV_NONHOST_INFO",
		"EV_OMIT_BOOT_DEVICE_EVENTS",
	}
	if int64(t) < int64(len(names)) {
		return names[t]
	}
	return fmt.Sprintf("event type %#x", uint32(t))
}

func (t Type) efiName() string {
	switch t {
	case EvVariableConfig:
		return "EV_EFI_VARIABLE_DRIVER_CONFIG"
	case EvVariableBoot:
		return "EV_EFI_VARIABLE_BOOT"
	case EvBootApplication:
		return "EV_EFI_BOOT_SERVICES_APPLICATION"
	case EvBootDriver:
		return "EV_EFI_BOOT_SERVICES_DRIVER"
	case EvRuntimeDriver:
		return "EV_EFI_RUNTIME_SERVICES_DRIVER"
	case EvGPT:
		return "EV_EFI_GPT_EVENT"
	case EvEFIAction:
		return "EV_EFI_ACTION"
	case EvFirmwareBlob:
		return "EV_EFI_PLATFORM_FIRMWARE_BLOB"
	case EvHandoffTables:
		return "EV_EFI_HANDOFF_TABLES"
	case EvFirmwareBlob2:
		return "EV_EFI_PLATFORM_FIRMWARE_BLOB2"
	case EvHandoffTables2:
		return "EV_EFI_HANDOFF_TABLES2"
	case EvVariableBoot2:
		return "EV_EFI_VARIABLE_BOOT2"
	case EvGPT2:
		return "EV_EFI_GPT_EVENT2"
	case EvHCRTM:
		return "EV_EFI_HCRTM_EVENT"
	case EvVariableAuthority:
		return "EV_EFI_VARIABLE_AUTHORITY"
	case EvSPDMFirmwareBlob:
		return "EV_EFI_SPDM_FIRMWARE_BLOB"
	case EvSPDMFirmwareConfig:
		return "EV_EFI_SPDM_FIRMWARE_CONFIG"
	case EvSPDMPolicy:
		return "EV_EFI_SPDM_DEVICE_POLICY"
	case EvSPDMAuthority:
		return "EV_EFI_SPDM_DEVICE_AUTHORITY"
	}
	return ""
}
