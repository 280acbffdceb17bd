package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/eventlog"
)

// Judge says what the facts mean. The findings are in the order of the subjects;
// there is one for each subject that was looked at.
func Judge(f Facts) []Finding {
	var findings []Finding
	add := func(s Subject, judge func(Facts) Finding) {
		var found Finding
		if err := f.Unknown[s]; err != nil {
			found = unknown(err)
		} else {
			found = judge(f)
		}
		found.Subject = s
		findings = append(findings, found)
	}
	if err := f.Unknown[TPM]; err != nil {
		findings = append(findings, Finding{TPM, Problem, err.Error(), "use other keys until it answers"})
	} else {
		add(TPM, judgeKind)
		add(Encryption, judgeEncryption)
		add(Owner, judgeOwner)
		add(RootKey, judgeRoot)
		add(PINs, judgePINs)
		add(Endorsed, judgeCertificate)
		add(Banks, judgeBanks)
		add(Measured, judgeMeasured)
		if f.Log != nil || f.Unknown[EventLog] != nil {
			add(EventLog, judgeLog)
		}
	}
	if f.SecureBoot != nil || f.Unknown[SecureBoot] != nil {
		add(SecureBoot, judgeSecureBoot)
	}
	if f.Boot != nil && f.Unknown[TPM] == nil {
		add(Signatures, judgeSignatures)
	}
	if value := f.PCRs[sha256][tpm.LatchPCR]; value != nil {
		add(Latch, judgeLatch)
	}
	return findings
}

// unknown is the finding about what could not be found out.
func unknown(err error) Finding {
	found := Finding{Level: Warning, Seen: "could not be found out: " + err.Error()}
	switch {
	case errors.Is(err, fs.ErrPermission):
		found.Do = "try again as root"
	case errors.Is(err, eventlog.ErrNone):
		found.Level, found.Do = Note, "without it nobody can say what moved a PCR: see that securityfs is mounted at /sys/kernel/security"
	}
	return found
}

func judgeKind(f Facts) Finding {
	id := f.Identity
	found := Finding{Level: OK, Seen: fmt.Sprintf("%s TPM of %s, firmware %s, specification %s", KindOf(id), MakerOf(id), id.Firmware, id.Revision)}
	if id.Model != "" {
		found.Seen += fmt.Sprintf(" (%s)", id.Model)
	}
	switch KindOf(id) {
	case Software:
		found.Level = Warning
		found.Do = "whoever has the folder of its state has what it sealed: use it for tests, or keep that folder where the disk is not"
	case Virtual:
		found.Level = Note
		found.Do = "whoever runs the hypervisor has what it sealed; use a second key or a PIN if that is not wanted"
	case Discrete:
		found.Level = Note
		found.Do = "who can solder to its bus while the machine boots can have it open a key without a PIN; use a PIN where the machine can be stolen"
	case Unknown:
		found.Level = Note
		found.Do = "see in the machine's manual whether it is a chip, firmware, or a hypervisor's"
	case Firmware:
		if id.Manufacturer == "AMD" {
			found.Level = Note
			found.Do = "updates of the machine's firmware may clear it: keep another key for each volume"
		}
	}
	return found
}

func judgeEncryption(f Facts) Finding {
	if !f.Encrypts {
		return Finding{Level: Problem, Seen: "the TPM does not have AES in CFB mode", Do: "no key can be sealed: update the TPM's firmware"}
	}
	return Finding{Level: OK, Seen: "keys cross the bus under AES-128 in CFB mode"}
}

func judgeOwner(f Facts) Finding {
	const then = "keep one at 0x81000001 (tpm2_createprimary -C o, tpm2_evictcontrol), or remove the password (tpm2_changeauth -c o)"
	switch {
	case f.Owner.Off:
		return Finding{Level: Problem, Seen: "the firmware switched the owner's keys off for this boot", Do: "switch the TPM, or its storage hierarchy, on in the firmware's setup"}
	case f.Owner.Password && f.Unknown[RootKey] != nil:
		return Finding{Level: Note, Seen: "the owner has a password: keys are sealed only under a storage root key that is kept", Do: then}
	case f.Owner.Password && !f.Root.Present:
		return Finding{Level: Problem, Seen: "the owner has a password, and no storage root key is kept", Do: then}
	case f.Owner.Password && f.Root.Unfit != "":
		return Finding{Level: Problem, Seen: "the owner has a password, and what is kept at 0x81000001 is no storage root key of use", Do: then}
	case f.Owner.Password:
		return Finding{Level: Note, Seen: "the owner has a password: keys are sealed under the storage root key that is kept"}
	case !f.Owner.LockoutPassword:
		return Finding{
			Level: Note, Seen: "there is no lockout password: any root can clear the TPM, and all that it sealed is gone then",
			Do: "keep another key for each volume; tpm2_changeauth -c l sets one",
		}
	}
	return Finding{Level: OK, Seen: "keys can be made, and clearing the TPM needs the lockout password"}
}

func judgeRoot(f Facts) Finding {
	left := "it is left alone, and a key is made anew for each use"
	if f.Owner.Password {
		left = "the owner's password keeps others from being made"
	}
	switch r := f.Root; {
	case !r.Present && f.Owner.Password:
		return Finding{Level: OK, Seen: "none is kept at 0x81000001"}
	case !r.Present:
		return Finding{Level: OK, Seen: "none is kept at 0x81000001: it is made anew for each use, which takes a slow TPM some seconds"}
	case r.Unfit != "":
		return Finding{Level: Note, Seen: fmt.Sprintf("what is kept at 0x81000001 is of no use: %s; %s", r.Unfit, left)}
	case r.Template == "" && f.Owner.Password:
		return Finding{Level: Note, Seen: "the key at 0x81000001 is used; from which template it was made only its owner can tell"}
	case r.Template == "":
		return Finding{Level: Note, Seen: "the key at 0x81000001 is made from no known template, or only its owner can tell; " + left}
	default:
		return Finding{Level: OK, Seen: fmt.Sprintf("the key at 0x81000001 is made from the template %s", r.Template)}
	}
}

// fewTries is when a user should know.
const fewTries = 3

func judgePINs(f Facts) Finding {
	s := f.PINs
	seen := fmt.Sprintf("%d of %d; one is forgotten after %d s", s.Failures, s.MaxTries, s.Recovery)
	wait := fmt.Sprintf("wait %d s for one more try, or reset the counter with the lockout password (tpm2_dictionarylockout -c)", s.Recovery)
	switch {
	case s.LockedOut:
		return Finding{Level: Problem, Seen: seen + "; the TPM is locked: no key with a PIN can be unsealed", Do: wait}
	case s.Failures > 0 && s.TriesLeft() <= fewTries:
		return Finding{Level: Warning, Seen: seen + "; " + plural(s.TriesLeft(), "more locks", "more lock") + " the TPM", Do: wait}
	}
	return Finding{Level: OK, Seen: seen}
}

func plural(n int, one, more string) string {
	if n == 1 {
		more = one
	}
	return fmt.Sprintf("%d %s", n, more)
}

func judgeCertificate(f Facts) Finding {
	if len(f.Certificates) > 0 {
		return Finding{Level: OK, Seen: "the manufacturer's, for " + strings.Join(f.Certificates, "; ") + "; it was not verified"}
	}
	found := Finding{Level: Note, Seen: "the TPM holds none of its manufacturer"}
	if KindOf(f.Identity) == Firmware {
		found.Do = "the manufacturer of a firmware TPM gives it out on the network; it is needed only to prove to others which TPM this is"
	}
	return found
}

func judgeLatch(f Facts) Finding {
	if f.PCRs[sha256].Unused(tpm.LatchPCR) {
		return Finding{
			Level: Note, Seen: "open: keys that are sealed with the latch can be unsealed",
			Do: "cryptctl tpm latch closes it, when all volumes are open",
		}
	}
	return Finding{Level: OK, Seen: "closed: what is sealed with the latch stays sealed until the next boot"}
}

// list writes numbers of PCRs.
func list(pcrs []int) string {
	text := make([]string, len(pcrs))
	for i, p := range pcrs {
		text[i] = fmt.Sprint(p)
	}
	return strings.Join(text, ", ")
}
