package tpm

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// LatchPCR is the register of the latch: zero until it closes, or until systemd
// measures volumes.
const LatchPCR = 15

// PCRs are values of registers of one bank.
type PCRs map[int][]byte

// bankOf returns the bank that tokens call name, and the length of its values.
func bankOf(name string) (tpm2.TPMIAlgHash, int, error) {
	bank, err := pcr.BankByName(name)
	return tpm2.TPMIAlgHash(bank), bank.Size(), err
}

func selection(bank tpm2.TPMIAlgHash, pcrs []int) tpm2.TPMLPCRSelection {
	which := make([]uint, len(pcrs))
	for i, p := range pcrs {
		which[i] = uint(p)
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: bank, PCRSelect: tpm2.PCClientCompatible.PCRs(which...)}}}
}

// errNoBank: the TPM does not have a bank of registers, or it is switched off.
var errNoBank = errors.New("no values of the PCRs")

// readPCRs reads registers, of which a TPM gives at most eight in one answer.
func readPCRs(l *link, bankName string, pcrs []int) (PCRs, error) {
	bank, size, err := bankOf(bankName)
	if err != nil {
		return nil, err
	}
	values := PCRs{}
	for missing := slices.Clone(pcrs); len(missing) > 0; {
		rsp, err := tpm2.PCRRead{PCRSelectionIn: selection(bank, missing)}.Execute(l)
		if errors.Is(err, tpm2.TPMRCHash) { // the algorithm is not known at all
			return nil, fmt.Errorf("%w %v of bank %s, which the TPM does not have", errNoBank, missing, bankName)
		}
		if err != nil {
			return nil, err
		}
		got, err := selected(rsp.PCRSelectionOut, bank)
		switch given := len(rsp.PCRValues.Digests); {
		case err == nil && len(got) == 0 && given == 0:
			return nil, fmt.Errorf("%w %v of bank %s; it is switched off in the firmware, or has no such PCRs", errNoBank, missing, bankName)
		case err != nil || len(got) != given:
			return nil, fmt.Errorf("the TPM gives %d values of other PCRs than %v of bank %s", given, missing, bankName)
		}
		for i, index := range got {
			value := rsp.PCRValues.Digests[i].Buffer
			if len(value) != size || !slices.Contains(missing, index) {
				return nil, fmt.Errorf("the TPM gives %d bytes for PCR %d of bank %s", len(value), index, bankName)
			}
			values[index] = value
		}
		missing = slices.DeleteFunc(missing, func(p int) bool { return values[p] != nil })
	}
	return values, nil
}

// selected lists the PCRs of a selection, which must be of one bank, or empty.
func selected(s tpm2.TPMLPCRSelection, bank tpm2.TPMIAlgHash) ([]int, error) {
	if len(s.PCRSelections) == 0 {
		return nil, nil
	}
	if len(s.PCRSelections) != 1 || s.PCRSelections[0].Hash != bank {
		return nil, errors.New("another bank")
	}
	var pcrs []int
	for i, b := range s.PCRSelections[0].PCRSelect {
		for bit := range 8 {
			if b>>bit&1 == 1 {
				pcrs = append(pcrs, 8*i+bit)
			}
		}
	}
	return pcrs, nil
}

// ReadPCRs returns the values of registers of a bank: sha1, sha256, sha384, sha512.
func (d *Device) ReadPCRs(ctx context.Context, bank string, pcrs ...int) (PCRs, error) {
	for _, p := range pcrs {
		if p < 0 || p >= pcr.Count {
			return nil, fail(Refused, nil, "there is no PCR %d", p)
		}
	}
	return run(ctx, d, leave, idle, func(l *link) (PCRs, error) {
		values, err := readPCRs(l, bank, pcrs)
		return values, tpmFault(err, "read PCRs")
	})
}

// digest is what PolicyPCR binds: the hash over the values in the order of their
// numbers.
func (p PCRs) digest() []byte {
	h := sha256.New()
	for _, index := range slices.Sorted(maps.Keys(p)) {
		h.Write(p[index])
	}
	return h.Sum(nil)
}

// Unused reports whether a register is there, and nothing was measured into it.
func (p PCRs) Unused(index int) bool { return len(p[index]) > 0 && unused(p[index]) }

// unused reports whether a value shows that nothing was measured: zeros, or ones
// as they stand in registers that only a dynamic launch sets.
func unused(value []byte) bool {
	return !slices.ContainsFunc(value, func(b byte) bool { return b != 0 }) ||
		!slices.ContainsFunc(value, func(b byte) bool { return b != 0xff })
}

// latchEvent is what closes the latch: its hash goes into PCR 15 of each bank.
const latchEvent = "cryptctl: volumes are open"

// Latch extends PCR 15, so that a policy with [Policy.Latch] is not fulfilled
// again before the next boot. It fails unless the register is seen to get the
// value that this gives: whoever is about to hand control to someone else must not
// do so then. When someone else extends it at the same time, it is done once more.
func (d *Device) Latch(ctx context.Context) error {
	_, err := run(ctx, d, leave, idle, func(l *link) (nothing, error) {
		return nothing{}, tpmFault(latch(l), "close the latch")
	})
	return err
}

func latch(l *link) error {
	before, err := readLatch(l)
	if err != nil {
		return err
	}
	for range rounds {
		after, err := extendLatch(l)
		if err != nil {
			return err
		}
		event := sha256.Sum256([]byte(latchEvent))
		want := sha256.Sum256(append(slices.Clone(before), event[:]...))
		if slices.Equal(after, want[:]) {
			return nil
		}
		if unused(after) || slices.Equal(after, before) {
			break // nobody extended it
		}
		before = after
	}
	return fail(Faulty, nil, "PCR %d does not have the value that extending it gives", LatchPCR)
}

func readLatch(l *link) ([]byte, error) {
	now, err := readPCRs(l, bankSHA256, []int{LatchPCR})
	return now[LatchPCR], err
}

// extendLatch closes the latch, and returns the value of its register then.
func extendLatch(l *link) ([]byte, error) {
	_, err := tpm2.PCREvent{
		PCRHandle: tpm2.AuthHandle{Handle: LatchPCR, Auth: tpm2.PasswordAuth(nil)},
		EventData: tpm2.TPM2BEvent{Buffer: []byte(latchEvent)},
	}.Execute(l)
	if err != nil {
		return nil, err
	}
	return readLatch(l)
}
