package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// Identity is who made a TPM, by its own word.
type Identity struct {
	Manufacturer string // as the TCG registered it: IFX, INTC, ...
	Model        string // the manufacturer's own text
	Firmware     string // version: four numbers
	Revision     string // of the specification that it follows: 1.59
}

// Identity asks a TPM who made it. The texts are printable.
func (d *Device) Identity(ctx context.Context) (Identity, error) {
	return run(ctx, d, leave, idle, func(l *link) (Identity, error) {
		id, err := identity(l)
		return id, tpmFault(err, "say who made it")
	})
}

func identity(l *link) (Identity, error) {
	var values []uint32
	for _, p := range []tpm2.TPMPT{
		tpm2.TPMPTManufacturer, tpm2.TPMPTVendorString1, tpm2.TPMPTVendorString2, tpm2.TPMPTVendorString3,
		tpm2.TPMPTVendorString4, tpm2.TPMPTFirmwareVersion1, tpm2.TPMPTFirmwareVersion2, tpm2.TPMPTRevision,
	} {
		v, err := property(l, p)
		if err != nil {
			return Identity{}, err
		}
		values = append(values, v)
	}
	a, b := values[5], values[6]
	return Identity{
		Manufacturer: letters(values[0]),
		Model:        letters(values[1:5]...),
		Firmware:     fmt.Sprintf("%d.%d.%d.%d", a>>16, a&0xffff, b>>16, b&0xffff),
		Revision:     fmt.Sprintf("%d.%02d", values[7]/100, values[7]%100),
	}, nil
}

// letters reads text that a TPM keeps in numbers, four characters in each.
func letters(numbers ...uint32) string {
	var text []byte
	for _, n := range numbers {
		text = binary.BigEndian.AppendUint32(text, n)
	}
	for i, c := range text {
		switch {
		case c == 0:
			text[i] = ' '
		case c < ' ' || c > '~':
			text[i] = '?'
		}
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// Bank is a set of PCRs that a TPM has.
type Bank struct {
	Name string // sha1, sha256, ...
	PCRs []int
}

// Banks asks which PCR banks are switched on, in ascending order of strength.
func (d *Device) Banks(ctx context.Context) ([]Bank, error) {
	return run(ctx, d, leave, idle, func(l *link) ([]Bank, error) {
		banks, err := banks(l)
		return banks, tpmFault(err, "say which PCR banks it has")
	})
}

func banks(l *link) ([]Bank, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1}.Execute(l)
	if err != nil {
		return nil, err
	}
	list, err := rsp.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return nil, err
	}
	var found []Bank
	slices.SortStableFunc(list.PCRSelections, func(a, b tpm2.TPMSPCRSelection) int { return int(a.Hash) - int(b.Hash) })
	for _, s := range list.PCRSelections {
		pcrs, err := selected(tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{s}}, s.Hash)
		if err != nil {
			return nil, err
		}
		if len(pcrs) > 0 {
			found = append(found, Bank{pcr.Bank(s.Hash).String(), pcrs})
		}
	}
	return found, nil
}

// Owner is who may do what in a TPM.
type Owner struct {
	Password        bool // only who knows it makes storage root keys
	LockoutPassword bool // only who knows it clears the TPM, and its count of wrong PINs
	Off             bool // the firmware switched the owner's keys off for this boot
}

// Bits of TPM_PT_PERMANENT (Part 2, 8.6) and TPM_PT_STARTUP_CLEAR (8.7).
const (
	ownerAuthSet   = 1 << 0
	lockoutAuthSet = 1 << 2
	shEnable       = 1 << 1
)

// Owner asks which passwords are set.
func (d *Device) Owner(ctx context.Context) (Owner, error) {
	return run(ctx, d, leave, idle, func(l *link) (Owner, error) {
		permanent, err := property(l, tpm2.TPMPTPermanent)
		if err != nil {
			return Owner{}, tpmFault(err, "say which passwords are set")
		}
		started, err := property(l, tpm2.TPMPTStartupClear)
		return Owner{permanent&ownerAuthSet != 0, permanent&lockoutAuthSet != 0, started&shEnable == 0},
			tpmFault(err, "say which keys are switched on")
	})
}

// Encrypts asks whether the TPM has what our sessions are encrypted with: AES in
// CFB mode.
func (d *Device) Encrypts(ctx context.Context) (bool, error) {
	return run(ctx, d, leave, idle, func(l *link) (bool, error) {
		for _, alg := range []tpm2.TPMAlgID{tpm2.TPMAlgAES, tpm2.TPMAlgCFB} {
			rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapAlgs, Property: uint32(alg), PropertyCount: 1}.Execute(l)
			if err != nil {
				return false, tpmFault(err, "say which algorithms it has")
			}
			list, err := rsp.CapabilityData.Data.Algorithms()
			if err != nil {
				return false, tpmFault(err, "say which algorithms it has")
			}
			if len(list.AlgProperties) == 0 || list.AlgProperties[0].Alg != alg {
				return false, nil
			}
		}
		return true, nil
	})
}

// StorageRoot is what lies where storage root keys are kept: handle 0x81000001.
type StorageRoot struct {
	Present bool
	// Template that the key there is made from: tcg-ecc, systemd-rsa, ...; "" when
	// it is none that is known, or when only the owner could find out.
	Template string
	// Unfit says why it is no storage root key that keys can be sealed under.
	Unfit string
}

// StorageRoot looks at the persistent storage root key. To tell what it was made
// from, it makes keys again, which takes a slow TPM some seconds.
func (d *Device) StorageRoot(ctx context.Context) (StorageRoot, error) {
	return run(ctx, d, leave, idle, func(l *link) (StorageRoot, error) {
		s, err := storageRoot(l)
		return s, tpmFault(err, "show its storage root key")
	})
}

func storageRoot(l *link) (StorageRoot, error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: srkHandle}.Execute(l)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return StorageRoot{}, nil
	}
	if err != nil {
		return StorageRoot{}, err
	}
	s := StorageRoot{Present: true}
	key, err := newStorageKey(srkHandle, templatePersistent, &rsp.OutPublic, func() {})
	if err != nil {
		s.Unfit = err.Error()
		return s, nil
	}
	for _, t := range templates() {
		if t.public.Type != key.public.Type || t.public.ObjectAttributes != key.public.ObjectAttributes {
			continue // makes no such key
		}
		made, err := createPrimary(l, t)
		switch {
		case unsupported(err) || ownerLocked(err) || switchedOff(err):
			continue // it stays unknown
		case err != nil:
			return s, err
		}
		made.flush()
		if slices.Equal(made.name.Buffer, key.name.Buffer) {
			s.Template = t.name
			break
		}
	}
	return s, nil
}

// certificates are where the TCG EK Credential Profile (2.2.1.4) has certificates
// of endorsement keys.
func certificates() map[tpm2.TPMHandle]string {
	return map[tpm2.TPMHandle]string{
		0x01c00002: "RSA-2048", 0x01c0000a: "ECC P-256", 0x01c00012: "RSA-2048, high range", 0x01c00014: "ECC P-256, high range",
		0x01c00016: "ECC P-384", 0x01c00018: "ECC P-521", 0x01c0001c: "RSA-3072", 0x01c0001e: "RSA-4096",
	}
}

// Certificates asks for which endorsement keys the TPM has a certificate of its
// manufacturer. They are not read, so this proves nothing.
func (d *Device) Certificates(ctx context.Context) ([]string, error) {
	return run(ctx, d, leave, idle, func(l *link) ([]string, error) {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: 0x01c00000, PropertyCount: 254}.Execute(l)
		if err != nil {
			return nil, tpmFault(err, "list its certificates")
		}
		list, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			return nil, tpmFault(err, "list its certificates")
		}
		var found []string
		for _, h := range list.Handle {
			if kind, ok := certificates()[h]; ok {
				found = append(found, kind)
			}
		}
		return found, nil
	})
}
