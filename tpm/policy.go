package tpm

import (
	"bytes"
	"crypto/rsa"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/tpm/pcr"
)

const bankSHA256 = "sha256"

// Policy says under which conditions a TPM gives a key back. All parts that are
// set must be fulfilled.
type Policy struct {
	// PCRs must have the values that they have when the key is sealed, in the
	// SHA-256 bank. In any order; 15 is what Latch is for, and 11, 16 and 23
	// cannot work.
	PCRs []int
	// Signed asks for a signature by the key of [Boot], over the present values
	// of the PCRs that the key's owner predicted: 11, of a unified kernel image.
	Signed bool
	// Latch asks that PCR 15 is still zero: [Device.Latch] was not called, nor
	// has systemd measured a volume, in this boot.
	Latch bool
	// PIN asks for the PIN. The TPM counts wrong ones and locks itself.
	PIN bool
	// AllowWeak permits a policy that neither a PIN nor one of the PCRs 4, 7, 17 and
	// 18 guards. Any system that runs on the machine can fulfil it: the others are
	// about the machine and not about what it boots, or are zero until a boot loader
	// extends them, with values that are public.
	AllowWeak bool
}

// guards reports whether a literal PCR tells what was booted: firmware measures
// the boot loader into 4 and whose loaders it starts into 7, before they run; a
// dynamic launch measures into 17 and 18, and nobody else can.
func guards(index int) bool { return index == 4 || index == 7 || index == 17 || index == 18 }

// signedPCRs are the PCRs of a signed policy.
func signedPCRs() []int { return []int{11} }

// check refuses policies that cannot work or protect nothing, and returns the
// policy in the form in which it is sealed.
func (p Policy) check() (Policy, error) {
	p.PCRs = slices.Clone(p.PCRs)
	slices.Sort(p.PCRs)
	p.PCRs = slices.Compact(p.PCRs)
	for _, index := range p.PCRs {
		switch {
		case index < 0 || index >= pcr.Count:
			return p, fail(Refused, nil, "there is no PCR %d; a TPM has 0 to %d", index, pcr.Count-1)
		case index == 11:
			return p, fail(Refused, nil, "PCR 11 changes with every kernel and during the boot; use a signed policy for it")
		case index == LatchPCR:
			return p, fail(Refused, nil, "PCR 15 changes when volumes are opened; use the latch, which wants it to be zero")
		case index == 16 || index == 23:
			return p, fail(Refused, nil, "PCR %d can be reset by any program, so it says nothing", index)
		}
	}
	if p.PIN || p.AllowWeak || slices.ContainsFunc(p.PCRs, guards) {
		return p, nil
	}
	return p, p.weak()
}

// weak says why a policy that nothing guards protects nothing.
func (p Policy) weak() error {
	switch {
	case len(p.PCRs) > 0:
		return fail(Refused, nil, "the PCRs %v protect nothing: other systems find them as they are, or can extend them to the same values; add PCR 7, or a PIN", p.PCRs)
	case p.Signed:
		return fail(Refused, nil, "a signed PCR 11 alone protects nothing: any system can extend PCR 11 to the signed value; add PCR 7, or a PIN")
	}
	return fail(Refused, nil, "the key would be given to any system that runs on this machine; add PCR 7, or a PIN")
}

// conditions is a policy as it is computed and run, of any format: the signature
// first, then the literal PCRs, then the PIN.
type conditions struct {
	key           *rsa.PublicKey // of the signature; nil without
	shortExponent bool           // how the key's exponent is written
	signed        []int          // PCRs of the signature
	bank          string
	pcrs          []int // literal ones, sorted; with the latch's
	latch         bool  // PCR 15 is one of them, and must be zero
	pin           bool
}

// literal gives the values that the literal PCRs must have, of those that the
// registers have now.
func (c conditions) literal(now PCRs) PCRs {
	want := PCRs{}
	for _, pcr := range c.pcrs {
		want[pcr] = now[pcr]
		if c.latch && pcr == LatchPCR {
			want[pcr] = make([]byte, len(now[pcr]))
		}
	}
	return want
}

// reads are all registers that the policy looks at.
func (c conditions) reads() []int {
	all := slices.Clone(c.pcrs)
	if c.key != nil {
		all = append(all, c.signed...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// digest computes the policy (TPM 2.0 Part 3, 23).
func (c conditions) digest(literal PCRs) ([]byte, error) {
	calc, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, err
	}
	if c.key != nil {
		name, err := keyName(c.key, c.shortExponent)
		if err != nil {
			return nil, err
		}
		// First: in a TPM it starts from zero, whatever came before (23.16).
		if err := (tpm2.PolicyAuthorize{KeySign: *name}).Update(calc); err != nil {
			return nil, err
		}
	}
	if len(c.pcrs) > 0 {
		bank, _, err := bankOf(c.bank)
		if err != nil {
			return nil, err
		}
		if err := policyPCR(bank, c.pcrs, literal).Update(calc); err != nil {
			return nil, err
		}
	}
	if c.pin {
		if err := (tpm2.PolicyAuthValue{}).Update(calc); err != nil {
			return nil, err
		}
	}
	return calc.Hash().Digest, nil
}

func policyPCR(bank tpm2.TPMIAlgHash, pcrs []int, values PCRs) tpm2.PolicyPCR {
	return tpm2.PolicyPCR{PcrDigest: tpm2.TPM2BDigest{Buffer: values.digest()}, Pcrs: selection(bank, pcrs)}
}

// approved is the policy that a signature is about: the PCRs alone.
func (c conditions) approved(now PCRs) ([]byte, error) {
	bank, err := pcr.BankByName(c.bank)
	if err != nil {
		return nil, err
	}
	values := PCRs{}
	for _, index := range c.signed {
		values[index] = now[index]
	}
	return pcr.Policy(bank, values)
}

// errMoved: PCRs changed between reading and using them, as other programs may
// extend some at any time.
var errMoved = fail(Faulty, nil, "the TPM comes to another policy than its PCRs gave; they keep changing, or its answers are not to be believed")

// run fulfils the policy in a session, and compares what the TPM makes of it
// with the digest that is wanted: a secret is asked for only then.
func (c conditions) run(l *link, s tpm2.TPMHandle, sign *approval, want []byte) error {
	bank, _, err := bankOf(c.bank)
	if err != nil {
		return err
	}
	if c.key != nil {
		// No digest here: the TPM takes the present values, and what it makes of
		// them must be what was signed.
		if _, err := (tpm2.PolicyPCR{PolicySession: s, Pcrs: selection(bank, c.signed)}).Execute(l); err != nil {
			return err
		}
		if err := sign.authorize(l, s); err != nil {
			return err
		}
	}
	if len(c.pcrs) > 0 {
		if _, err := (tpm2.PolicyPCR{PolicySession: s, Pcrs: selection(bank, c.pcrs)}).Execute(l); err != nil {
			return err
		}
	}
	if c.pin {
		if _, err := (tpm2.PolicyAuthValue{PolicySession: s}).Execute(l); err != nil {
			return err
		}
	}
	got, err := tpm2.PolicyGetDigest{PolicySession: s}.Execute(l)
	if err != nil {
		return err
	}
	if !bytes.Equal(got.PolicyDigest.Buffer, want) {
		return errMoved
	}
	return nil
}
