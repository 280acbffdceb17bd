package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/secureboot"
)

// Facts are what is known of a TPM and of the machine that it is in.
type Facts struct {
	Identity     tpm.Identity
	Encrypts     bool // see tpm.Device.Encrypts
	Owner        tpm.Owner
	Root         tpm.StorageRoot
	PINs         tpm.Status
	Certificates []string
	Banks        []tpm.Bank
	PCRs         map[string]tpm.PCRs // by the name of the bank

	// Nil when nobody looked: a software TPM is not what the machine measured into.
	Log        *Log
	SecureBoot *secureboot.State
	Boot       *tpm.Boot

	// Unknown says why a fact could not be found out. With TPM, none about it could.
	Unknown map[Subject]error
}

// Log is what matters of an event log.
type Log struct {
	Verdicts []eventlog.Verdict // of the SHA-256 bank, by PCR
	Events   int
	// Debug are events of PCR 7 by which firmware says that it protects less than
	// usual.
	Debug []string
}

// Sources are where Gather looks, beside the TPM. What is empty is not looked at.
type Sources struct {
	EventLog   string // eventlog.Path
	SecureBoot string // secureboot.Path
	Boot       func() (tpm.Boot, error)
}

// Machine returns the sources of the machine itself.
func Machine() Sources {
	return Sources{EventLog: eventlog.Path, SecureBoot: secureboot.Path, Boot: tpm.ReadBoot}
}

// Gather finds out what Judge needs. What fails is in Unknown.
func Gather(ctx context.Context, d *tpm.Device, from Sources) Facts {
	f := Facts{PCRs: map[string]tpm.PCRs{}, Unknown: map[Subject]error{}}
	var err error
	if f.Identity, err = d.Identity(ctx); err != nil {
		f.Unknown[TPM] = err
	} else {
		f.ask(ctx, d)
		f.read(ctx, d)
	}
	if from.EventLog != "" && f.Unknown[TPM] == nil && f.Unknown[Measured] == nil {
		f.Log, err = readLog(from.EventLog, f.PCRs[sha256])
		f.note(EventLog, err)
	}
	if from.SecureBoot != "" {
		f.SecureBoot, err = secureboot.Read(from.SecureBoot)
		f.note(SecureBoot, err)
	}
	if from.Boot != nil {
		boot, err := from.Boot()
		f.Boot = &boot
		f.note(Signatures, err)
	}
	return f
}

// sha256 is the bank that keys are bound to.
const sha256 = "sha256"

func (f *Facts) note(s Subject, err error) {
	if err != nil {
		f.Unknown[s] = err
	}
}

// ask asks the TPM what it says of itself.
func (f *Facts) ask(ctx context.Context, d *tpm.Device) {
	var err error
	f.Encrypts, err = d.Encrypts(ctx)
	f.note(Encryption, err)
	f.Owner, err = d.Owner(ctx)
	f.note(Owner, err)
	f.Root, err = d.StorageRoot(ctx)
	f.note(RootKey, err)
	f.PINs, err = d.Status(ctx)
	f.note(PINs, err)
	f.Certificates, err = d.Certificates(ctx)
	f.note(Endorsed, err)
}

// read reads all registers of the banks that are known here.
func (f *Facts) read(ctx context.Context, d *tpm.Device) {
	var err error
	if f.Banks, err = d.Banks(ctx); err != nil {
		f.note(Banks, err)
		return
	}
	for _, bank := range f.Banks {
		if _, err := pcr.BankByName(bank.Name); err != nil {
			continue
		}
		values, err := d.ReadPCRs(ctx, bank.Name, bank.PCRs...)
		f.note(Measured, err)
		f.PCRs[bank.Name] = values
	}
}

// readLog holds a log against registers.
func readLog(path string, values tpm.PCRs) (*Log, error) {
	l, err := eventlog.Read(path)
	if err != nil {
		return nil, err
	}
	verdicts, err := l.Compare(pcr.SHA256, values)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Log{verdicts, len(l.Events), debugEvents(l)}, nil
}

// debugEvents finds what firmware measures into PCR 7 when its protection is
// lowered (Windows' requirements for firmware: "UEFI Debug Mode" for a debugger,
// "DMA Protection Disabled" for an IOMMU that is off).
func debugEvents(l *eventlog.Log) []string {
	var found []string
	for _, e := range l.Events {
		if e.PCR != 7 || e.Type != eventlog.EvEFIAction {
			continue
		}
		for _, text := range []string{"UEFI Debug Mode", "DMA Protection Disabled"} {
			if strings.TrimRight(string(e.Data), "\x00") == text {
				found = append(found, text)
			}
		}
	}
	return found
}
