package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/pcrsig"
	"github.com/cryptctl/cryptctl/tpm/secureboot"
)

func judgeBanks(f Facts) Finding {
	var names []string
	found := Finding{Level: Problem, Do: "keys are bound to the SHA-256 bank: switch it on in the firmware's setup"}
	for _, b := range f.Banks {
		name := b.Name
		if len(b.PCRs) < pcr.Count {
			name += fmt.Sprintf(" (%d of %d PCRs)", len(b.PCRs), pcr.Count)
		}
		names = append(names, name)
		if b.Name == sha256 && len(b.PCRs) == pcr.Count {
			found.Level, found.Do = OK, ""
		}
	}
	found.Seen = "switched on: " + strings.Join(names, ", ")
	if len(names) == 0 {
		found.Seen = "none is switched on"
	}
	return found
}

// firmwarePCRs are those that the firmware measures into before it starts a boot
// loader.
const firmwarePCRs = 8

// blank says whether the firmware left a bank as it was.
func blank(values tpm.PCRs) bool {
	for index := range firmwarePCRs {
		if _, ok := values[index]; ok && !values.Unused(index) {
			return false
		}
	}
	return true
}

func judgeMeasured(f Facts) Finding {
	var open []string
	for _, b := range f.Banks {
		if values := f.PCRs[b.Name]; b.Name != sha256 && values != nil && blank(values) {
			open = append(open, b.Name)
		}
	}
	switch values := f.PCRs[sha256]; {
	case values == nil:
		return Finding{Level: Problem, Seen: "there are no values of the SHA-256 bank"}
	case blank(values):
		return Finding{
			Level: Problem, Seen: "nothing was measured into PCRs 0 to 7: the firmware does not use this TPM, or this bank",
			Do: "switch the TPM on in the firmware's setup; until then a key is protected by a PIN only",
		}
	case values.Unused(7):
		return Finding{
			Level: Problem, Seen: "nothing was measured into PCR 7: the firmware does not tell the TPM whether Secure Boot is on",
			Do: "bind keys to PCR 4, or use a PIN",
		}
	case len(open) > 0:
		return Finding{
			Level: Warning, Seen: fmt.Sprintf("the firmware does not measure into the bank %s, so any system can put into it what it likes", strings.Join(open, ", ")),
			Do: "switch this bank off in the firmware's setup, and bind nothing to it",
		}
	}
	return Finding{Level: OK, Seen: "the firmware measures into all banks that are switched on"}
}

func judgeLog(f Facts) Finding {
	var wrong, later []int
	silent := false
	for i := range f.Log.Verdicts {
		v := &f.Log.Verdicts[i]
		silent = silent || v.PCR == 7 && v.Events == 0
		switch {
		case v.Accounted():
		case v.PCR < firmwarePCRs:
			wrong = append(wrong, v.PCR)
		case v.PCR < 16:
			later = append(later, v.PCR)
		}
	}
	switch {
	case len(wrong) > 0:
		level := Warning
		if slices.ContainsFunc(wrong, func(p int) bool { return p%2 == 0 || p == 7 }) {
			level = Problem
		}
		return Finding{
			Level: level, Seen: fmt.Sprintf("PCRs %s do not have the values that the log gives them", list(wrong)),
			Do: "bind no key to them: something extends them that the log does not tell of, and nobody can say what a change of theirs means; an update of the firmware may help",
		}
	case silent:
		return Finding{Level: Problem, Seen: "the log has no event for PCR 7", Do: "bind keys to PCR 4, or use a PIN"}
	case len(f.Log.Debug) > 0:
		return Finding{
			Level: Warning, Seen: "the firmware says in PCR 7: " + strings.Join(f.Log.Debug, ", "),
			Do: "switch debugging off and protection against DMA on in the firmware's setup, before keys are sealed",
		}
	}
	found := Finding{Level: OK, Seen: fmt.Sprintf("its %d events give PCRs 0 to 7 the values that they have", f.Log.Events)}
	if len(later) > 0 {
		found.Seen += fmt.Sprintf("; the operating system extended PCRs %s after it", list(later))
	}
	return found
}

func judgeSecureBoot(f Facts) Finding {
	s := f.SecureBoot
	if s.Enforced() {
		return Finding{Level: OK, Seen: s.String()}
	}
	found := Finding{
		Level: Warning, Seen: s.String(),
		Do: "without it PCR 7 has a value that any other system gets, too: bind keys to PCR 4 as well, or use a PIN",
	}
	if s.Firmware == secureboot.NoEFI {
		found.Do = "bind keys to the PCRs that the boot loader measures into, or use a PIN"
	}
	return found
}

func judgeSignatures(f Facts) Finding {
	b := f.Boot
	switch {
	case len(b.PublicKey) == 0 && len(b.Signatures) == 0:
		return Finding{
			Level: Note, Seen: "the boot image brings none",
			Do: "cryptctl tpm sign makes them for an image; without them, keys that are bound to its PCRs are sealed again after each update",
		}
	case len(b.PublicKey) == 0 || len(b.Signatures) == 0:
		return Finding{
			Level: Warning, Seen: "the boot image brings only one of public key (.pcrpkey) and signatures (.pcrsig)",
			Do: "build it with both",
		}
	}
	return signed(b, f.PCRs[sha256])
}

// signed says whether the signatures are about the present value of PCR 11.
func signed(b *tpm.Boot, values tpm.PCRs) Finding {
	key, err := pcrsig.ParsePublicKey(b.PublicKey)
	if err != nil {
		return Finding{Level: Warning, Seen: "the boot image's public key: " + err.Error(), Do: "build the image with the right .pcrpkey"}
	}
	all, err := pcrsig.Parse(b.Signatures)
	if err != nil {
		return Finding{Level: Warning, Seen: err.Error(), Do: "sign the image again with cryptctl tpm sign"}
	}
	value := values[kernelPCR]
	if value == nil || values.Unused(kernelPCR) {
		return Finding{
			Level: Warning, Seen: "nothing was measured into PCR 11, so no signature fits",
			Do: "start the image with a systemd-stub of version 252 or later",
		}
	}
	policy, err := pcr.Policy(pcr.SHA256, map[int][]byte{kernelPCR: value})
	if err != nil {
		return Finding{Level: Warning, Seen: err.Error()}
	}
	print := pcrsig.Fingerprint(key)
	entry, err := all.Select(pcr.SHA256, []int{kernelPCR}, "", print, policy)
	switch {
	case errors.Is(err, pcrsig.ErrOtherPolicy):
		return Finding{
			Level: Note, Seen: fmt.Sprintf("those of key %.8x are not about the present PCR 11: this phase of the boot was not signed, or another image was booted", print),
			Do: "as it should be when the phase in which volumes are opened is over; else see what cryptctl tpm predict gives for the image",
		}
	case err != nil:
		return Finding{Level: Warning, Seen: err.Error(), Do: "build the image with the .pcrpkey of the key that signs"}
	}
	if err := entry.Verify(key); err != nil {
		return Finding{Level: Problem, Seen: err.Error(), Do: "sign the image again with cryptctl tpm sign"}
	}
	return Finding{Level: OK, Seen: fmt.Sprintf("that of key %.8x is about the present PCR 11", print)}
}

// kernelPCR is what a unified kernel image is measured into.
const kernelPCR = 11
