package tpm

import (
	"context"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Status is what a TPM says about itself.
type Status struct {
	LockedOut bool // no object with a PIN can be used now
	Failures  int  // wrong PINs that are counted at present
	MaxTries  int  // wrong PINs before it locks itself
	Recovery  int  // seconds after which it forgets one
}

// TriesLeft is how many wrong PINs it takes to lock the TPM.
func (s Status) TriesLeft() int { return max(0, s.MaxTries-s.Failures) }

// Status asks for the counters of wrong PINs.
func (d *Device) Status(ctx context.Context) (Status, error) {
	return run(ctx, d, leave, idle, func(l *link) (Status, error) {
		s, err := status(l)
		return s, tpmFault(err, "say how it is")
	})
}

// inLockout is a bit of TPM_PT_PERMANENT (Part 2, 8.6).
const inLockout = 1 << 9

func status(l *link) (Status, error) {
	var s Status
	for _, ask := range []struct {
		property tpm2.TPMPT
		set      func(uint32)
	}{
		{tpm2.TPMPTPermanent, func(v uint32) { s.LockedOut = v&inLockout != 0 }},
		{tpm2.TPMPTLockoutCounter, func(v uint32) { s.Failures = int(v) }},
		{tpm2.TPMPTMaxAuthFail, func(v uint32) { s.MaxTries = int(v) }},
		{tpm2.TPMPTLockoutInterval, func(v uint32) { s.Recovery = int(v) }},
	} {
		v, err := property(l, ask.property)
		if err != nil {
			return Status{}, err
		}
		ask.set(v)
	}
	return s, nil
}

// property asks for one property.
func property(l *link, p tpm2.TPMPT) (uint32, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(p), PropertyCount: 1}.Execute(l)
	if err != nil {
		return 0, err
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		return 0, err
	}
	if len(list.TPMProperty) != 1 || list.TPMProperty[0].Property != p {
		return 0, fmt.Errorf("the TPM does not say what its property %#x is", uint32(p))
	}
	return list.TPMProperty[0].Value, nil
}
