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

// latchPCR is zero until the latch closes, or until systemd measures volumes.
const latchPCR = 15

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

// readPCRs reads registers, of which a TPM gives at most eight in one answer.
func readPCRs(l *link, bankName string, pcrs []int) (PCRs, error) {
	bank, size, err := bankOf(bankName)
	if err != nil {
		return nil, err
	}
	values := PCRs{}
	for missing := slices.Clone(pcrs); len(missing) > 0; {
		rsp, err := tpm2.PCRRead{PCRSelectionIn: selection(bank, missing)}.Execute(l)
		if err != nil {
			return nil, err
		}
		got, err := selected(rsp.PCRSelectionOut, bank)
		if err != nil || len(got) != len(rsp.PCRValues.Digests) || len(got) == 0 {
			return nil, fmt.Errorf("the TPM gives no values of the PCRs %v of bank %s; it is switched off in the firmware, or has no such PCRs", missing, bankName)
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

// selected lists the PCRs of a selection, which must be of one bank.
func selected(s tpm2.TPMLPCRSelection, bank tpm2.TPMIAlgHash) ([]int, error) {
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

// unused reports whether a value shows that nothing was measured: zeros, or ones
// as they stand in registers that only a dynamic launch sets.
func unused(value []byte) bool {
	return !slices.ContainsFunc(value, func(b byte) bool { return b != 0 }) ||
		!slices.ContainsFunc(value, func(b byte) bool { return b != 0xff })
}

// latchEvent is what closes the latch: its hash goes into PCR 15 of each bank.
const latchEvent = "cryptctl: volumes are open"

// Latch extends PCR 15, so that a policy with [Policy.Latch] is not fulfilled
// again before the next boot. It fails unless the register is seen to have
// changed: whoever is about to hand control to someone else must not do so then.
func (d *Device) Latch(ctx context.Context) error {
	_, err := run(ctx, d, leave, idle, func(l *link) (nothing, error) {
		return nothing{}, tpmFault(latch(l), "close the latch")
	})
	return err
}

func latch(l *link) error {
	before, err := readPCRs(l, bankSHA256, []int{latchPCR})
	if err != nil {
		return err
	}
	_, err = tpm2.PCREvent{
		PCRHandle: tpm2.AuthHandle{Handle: latchPCR, Auth: tpm2.PasswordAuth(nil)},
		EventData: tpm2.TPM2BEvent{Buffer: []byte(latchEvent)},
	}.Execute(l)
	if err != nil {
		return err
	}
	after, err := readPCRs(l, bankSHA256, []int{latchPCR})
	if err != nil {
		return err
	}
	event := sha256.Sum256([]byte(latchEvent))
	want := sha256.Sum256(append(slices.Clone(before[latchPCR]), event[:]...))
	if !slices.Equal(after[latchPCR], want[:]) {
		return fail(Faulty, nil, "PCR %d does not have the value that extending it gives", latchPCR)
	}
	return nil
}
