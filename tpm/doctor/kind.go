package doctor

import "github.com/cryptctl/cryptctl/tpm"

// Kind is what a TPM is made of.
type Kind string

// Kinds of TPMs.
const (
	Discrete Kind = "discrete" // a chip of its own, on a bus
	Firmware Kind = "firmware" // a program in a protected part of the processor
	Virtual  Kind = "virtual"  // of a hypervisor, whose operator has its state
	Software Kind = "software" // swtpm: its state is a folder
	Unknown  Kind = "unknown"  // a manufacturer that makes several kinds, or is not known
)

// maker is what is known of a manufacturer (TCG, Vendor ID Registry).
type maker struct {
	name string
	kind Kind
}

func makers() map[string]maker {
	return map[string]maker{
		"AMD":  {"AMD", Firmware},
		"INTC": {"Intel", Firmware},
		"QCOM": {"Qualcomm", Firmware},
		"ATML": {"Atmel", Discrete},
		"IFX":  {"Infineon", Discrete},
		"NTC":  {"Nuvoton", Discrete},
		"NTZ":  {"Nationz", Discrete},
		"STM":  {"STMicroelectronics", Discrete},
		"WEC":  {"Winbond", Discrete},
		"AMZN": {"Amazon", Virtual},
		"GOOG": {"Google", Virtual},
		"VMW":  {"VMware", Virtual},
		"MSFT": {"Microsoft", Unknown}, // Hyper-V's, and firmware that was made from its source
		"IBM":  {"IBM", Unknown},
	}
}

// softwareModel is what libtpms, the library of swtpm, says of itself.
const softwareModel = "SW TPM"

// KindOf tells what a TPM is made of by what it says of itself.
func KindOf(id tpm.Identity) Kind {
	if id.Manufacturer == "IBM" && id.Model == softwareModel {
		return Software
	}
	if m, ok := makers()[id.Manufacturer]; ok {
		return m.kind
	}
	return Unknown
}

// MakerOf returns a manufacturer's name for people.
func MakerOf(id tpm.Identity) string {
	if m, ok := makers()[id.Manufacturer]; ok {
		return m.name
	}
	return id.Manufacturer
}
