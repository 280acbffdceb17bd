package doctor_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/doctor"
	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/secureboot"
)

// values are registers after a boot: those of the firmware and of the kernel are
// measured into, and the others as after a reset.
func values(bank pcr.Bank) tpm.PCRs {
	all := tpm.PCRs{}
	for i := range pcr.Count {
		all[i] = bank.Initial(i)
	}
	for _, i := range []int{0, 1, 2, 3, 4, 5, 6, 7, 11} {
		all[i] = bank.Sum(fmt.Appendf(nil, "event of %d", i))
	}
	return all
}

func every() []int {
	all := make([]int, pcr.Count)
	for i := range all {
		all[i] = i
	}
	return all
}

// sound is a machine that nothing is wrong with.
func sound() doctor.Facts {
	log := doctor.Log{Events: 40}
	for i := range pcr.Count {
		log.Verdicts = append(log.Verdicts, eventlog.Verdict{PCR: i, Bank: pcr.SHA256, Agreement: eventlog.Agrees, Events: 3})
	}
	return doctor.Facts{
		Identity:     tpm.Identity{Manufacturer: "INTC", Model: "Intel", Firmware: "600.7.0.0", Revision: "1.38"},
		Encrypts:     true,
		Owner:        tpm.Owner{LockoutPassword: true},
		Root:         tpm.StorageRoot{Present: true, Template: "tcg-ecc"},
		PINs:         tpm.Status{MaxTries: 32, Recovery: 7200},
		Certificates: []string{"RSA-2048", "ECC P-256"},
		Banks:        []tpm.Bank{{Name: "sha256", PCRs: every()}},
		PCRs:         map[string]tpm.PCRs{"sha256": values(pcr.SHA256)},
		Log:          &log,
		SecureBoot:   &secureboot.State{Firmware: secureboot.SecureBoot, On: true, Mode: secureboot.ModeUser},
		Unknown:      map[doctor.Subject]error{},
	}
}

func find(t *testing.T, findings []doctor.Finding, s doctor.Subject) *doctor.Finding {
	t.Helper()
	var found *doctor.Finding
	for i := range findings {
		if findings[i].Subject == s && found != nil {
			t.Fatalf("two findings about %s", s)
		}
		if findings[i].Subject == s {
			found = &findings[i]
		}
	}
	return found
}

// TestSound: what is right gives no more than a note about the open latch.
func TestSound(t *testing.T) {
	t.Parallel()
	findings := doctor.Judge(sound())
	var subjects []doctor.Subject
	for _, f := range findings {
		subjects = append(subjects, f.Subject)
		if want := map[doctor.Subject]doctor.Level{doctor.Latch: doctor.Note}[f.Subject]; f.Level != want && f.Level != doctor.OK {
			t.Errorf("%s is %s: %s", f.Subject, f.Level, f.Seen)
		}
		if f.Seen == "" || f.Level != doctor.OK && f.Do == "" {
			t.Errorf("%s says nothing: %+v", f.Subject, f)
		}
	}
	if diff := cmp.Diff([]doctor.Subject{
		doctor.TPM, doctor.Encryption, doctor.Owner, doctor.RootKey, doctor.PINs, doctor.Endorsed, doctor.Banks, doctor.Measured,
		doctor.EventLog, doctor.SecureBoot, doctor.Latch,
	}, subjects); diff != "" {
		t.Error(diff)
	}
	if w := doctor.Worst(findings); w != doctor.Note {
		t.Errorf("the worst is %s", w)
	}
	if diff := cmp.Diff(findings, doctor.Judge(sound())); diff != "" {
		t.Errorf("the same facts give others: %s", diff)
	}
}

// TestJudge breaks one fact of a sound machine after the other: the finding has
// the level, and says what it is about; all others have the level that they had.
func TestJudge(t *testing.T) {
	t.Parallel()
	verdict := func(index int, a eventlog.Agreement) func(*doctor.Facts) {
		return func(f *doctor.Facts) { f.Log.Verdicts[index].Agreement = a }
	}
	for _, c := range []struct {
		name    string
		change  func(*doctor.Facts)
		subject doctor.Subject
		level   doctor.Level
		says    string
	}{
		{"swtpm", func(f *doctor.Facts) { f.Identity = tpm.Identity{Manufacturer: "IBM", Model: "SW TPM"} }, doctor.TPM, doctor.Warning, "software TPM of IBM"},
		{"a chip", func(f *doctor.Facts) { f.Identity.Manufacturer = "IFX" }, doctor.TPM, doctor.Note, "discrete TPM of Infineon"},
		{"AMD", func(f *doctor.Facts) { f.Identity.Manufacturer = "AMD" }, doctor.TPM, doctor.Note, "firmware TPM of AMD"},
		{"a cloud", func(f *doctor.Facts) { f.Identity.Manufacturer = "GOOG" }, doctor.TPM, doctor.Note, "virtual TPM of Google"},
		{"Hyper-V or firmware", func(f *doctor.Facts) { f.Identity.Manufacturer = "MSFT" }, doctor.TPM, doctor.Note, "unknown TPM of Microsoft"},
		{"nobody knows", func(f *doctor.Facts) { f.Identity.Manufacturer = "XYZ" }, doctor.TPM, doctor.Note, "unknown TPM of XYZ"},
		{"no AES-CFB", func(f *doctor.Facts) { f.Encrypts = false }, doctor.Encryption, doctor.Problem, "AES in CFB mode"},
		{"owner off", func(f *doctor.Facts) { f.Owner.Off = true }, doctor.Owner, doctor.Problem, "switched the owner's keys off"},
		{"owner's password", func(f *doctor.Facts) { f.Owner.Password = true }, doctor.Owner, doctor.Note, "under the storage root key that is kept"},
		{"owner's password, no root key", func(f *doctor.Facts) { f.Owner.Password, f.Root = true, tpm.StorageRoot{} }, doctor.Owner, doctor.Problem, "no storage root key is kept"},
		{"no lockout password", func(f *doctor.Facts) { f.Owner = tpm.Owner{} }, doctor.Owner, doctor.Note, "no lockout password"},
		{"no root key", func(f *doctor.Facts) { f.Root = tpm.StorageRoot{} }, doctor.RootKey, doctor.OK, "none is kept"},
		{"foreign root key", func(f *doctor.Facts) { f.Root.Template = "" }, doctor.RootKey, doctor.Note, "no known template"},
		{"unfit root key", func(f *doctor.Facts) { f.Root.Unfit = "it signs" }, doctor.RootKey, doctor.Note, "it signs"},
		{"locked", func(f *doctor.Facts) { f.PINs.LockedOut = true }, doctor.PINs, doctor.Problem, "the TPM is locked"},
		{"few tries", func(f *doctor.Facts) { f.PINs.Failures = 29 }, doctor.PINs, doctor.Warning, "29 of 32; one is forgotten after 7200 s; 3 more lock the TPM"},
		{"one try", func(f *doctor.Facts) { f.PINs.Failures = 31 }, doctor.PINs, doctor.Warning, "1 more locks the TPM"},
		{"some tries", func(f *doctor.Facts) { f.PINs.Failures = 28 }, doctor.PINs, doctor.OK, "28 of 32"},
		{"few at all", func(f *doctor.Facts) { f.PINs.MaxTries = 3 }, doctor.PINs, doctor.OK, "0 of 3"},
		{"no certificate", func(f *doctor.Facts) { f.Certificates = nil }, doctor.Endorsed, doctor.Note, "holds none"},
		{"no bank", func(f *doctor.Facts) { f.Banks = nil }, doctor.Banks, doctor.Problem, "none is switched on"},
		{"half a bank", func(f *doctor.Facts) { f.Banks[0].PCRs = every()[:16] }, doctor.Banks, doctor.Problem, "sha256 (16 of 24 PCRs)"},
		{"nothing measured", func(f *doctor.Facts) {
			for i := range 8 {
				f.PCRs["sha256"][i] = pcr.SHA256.Initial(i)
			}
		}, doctor.Measured, doctor.Problem, "nothing was measured into PCRs 0 to 7"},
		{"PCR 7 is mute", func(f *doctor.Facts) { f.PCRs["sha256"][7] = make([]byte, 32) }, doctor.Measured, doctor.Problem, "nothing was measured into PCR 7"},
		{"all ones", func(f *doctor.Facts) { f.PCRs["sha256"][7] = pcr.SHA256.Initial(17) }, doctor.Measured, doctor.Problem, "nothing was measured into PCR 7"},
		{"a bank without a guard", func(f *doctor.Facts) {
			f.Banks = append(f.Banks, tpm.Bank{Name: "sha384", PCRs: every()})
			f.PCRs["sha384"] = values(pcr.SHA384)
			for i := range 8 {
				f.PCRs["sha384"][i] = pcr.SHA384.Initial(i)
			}
		}, doctor.Measured, doctor.Warning, "does not measure into the bank sha384"},
		{"PCR 7 off the log", verdict(7, eventlog.Deviates), doctor.EventLog, doctor.Problem, "PCRs 7 do not have"},
		{"PCR 4 untouched", verdict(4, eventlog.Untouched), doctor.EventLog, doctor.Problem, "PCRs 4 do not have"},
		{"PCR 1 off the log", verdict(1, eventlog.Deviates), doctor.EventLog, doctor.Warning, "PCRs 1 do not have"},
		{"the system extends", verdict(15, eventlog.Unlogged), doctor.EventLog, doctor.OK, "extended PCRs 15 after it"},
		{"phases", verdict(11, eventlog.Phases), doctor.EventLog, doctor.OK, "give PCRs 0 to 7 the values"},
		{"no event of PCR 7", func(f *doctor.Facts) { f.Log.Verdicts[7].Events = 0 }, doctor.EventLog, doctor.Problem, "no event for PCR 7"},
		{"debugger", func(f *doctor.Facts) { f.Log.Debug = []string{"UEFI Debug Mode"} }, doctor.EventLog, doctor.Warning, "UEFI Debug Mode"},
		{"Secure Boot off", func(f *doctor.Facts) { f.SecureBoot.On = false }, doctor.SecureBoot, doctor.Warning, "off (user mode)"},
		{"shim verifies nothing", func(f *doctor.Facts) { f.SecureBoot.ShimOff = true }, doctor.SecureBoot, doctor.Warning, "undone"},
		{"no EFI", func(f *doctor.Facts) { f.SecureBoot = &secureboot.State{} }, doctor.SecureBoot, doctor.Warning, "not started by EFI"},
		{"latched", func(f *doctor.Facts) { f.PCRs["sha256"][15] = pcr.SHA256.Sum(nil) }, doctor.Latch, doctor.OK, "closed"},
	} {
		f := sound()
		was := doctor.Judge(f)
		c.change(&f)
		is := doctor.Judge(f)
		got := find(t, is, c.subject)
		if got == nil || got.Level != c.level || !strings.Contains(got.Seen, c.says) {
			t.Errorf("%s: %+v", c.name, got)
			continue
		}
		if (got.Level == doctor.Warning || got.Level == doctor.Problem) && got.Do == "" {
			t.Errorf("%s: nothing to do about it", c.name)
		}
		for _, other := range is {
			if other.Subject == c.subject {
				continue
			}
			if before := find(t, was, other.Subject); before == nil || before.Level != other.Level {
				t.Errorf("%s: %s is now %+v", c.name, other.Subject, other)
			}
		}
	}
}

// TestOwnerPassword: a storage root key that is neither kept, or not fit, nor to
// be made is a problem, and nothing says then that one is made.
func TestOwnerPassword(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		root  tpm.StorageRoot
		level doctor.Level
		says  string
	}{
		{"none", tpm.StorageRoot{}, doctor.Problem, "no storage root key is kept"},
		{"unfit", tpm.StorageRoot{Present: true, Unfit: "it signs"}, doctor.Problem, "no storage root key of use"},
		{"of any template", tpm.StorageRoot{Present: true}, doctor.Note, "under the storage root key that is kept"},
	} {
		f := sound()
		f.Owner.Password, f.Root = true, c.root
		findings := doctor.Judge(f)
		got := find(t, findings, doctor.Owner)
		if got.Level != c.level || !strings.Contains(got.Seen, c.says) || (got.Level == doctor.Problem) != strings.Contains(got.Do, "tpm2_evictcontrol") {
			t.Errorf("%s: %+v", c.name, got)
		}
		if root := find(t, findings, doctor.RootKey); strings.Contains(root.Seen, "made anew") || !strings.Contains(root.Seen, c.root.Unfit) {
			t.Errorf("%s: %+v", c.name, root)
		}
	}
	f := sound()
	f.Owner.Password, f.Root = true, tpm.StorageRoot{}
	f.Unknown[doctor.RootKey] = errors.New("it is slow")
	if got := find(t, doctor.Judge(f), doctor.Owner); got.Level != doctor.Note {
		t.Errorf("a storage root key that is not known: %+v", got)
	}
}

// TestUnknown: what could not be found out is said, and hides nothing else.
func TestUnknown(t *testing.T) {
	t.Parallel()
	for _, s := range []doctor.Subject{
		doctor.Encryption, doctor.Owner, doctor.RootKey, doctor.PINs, doctor.Endorsed, doctor.Banks, doctor.Measured, doctor.EventLog, doctor.SecureBoot,
	} {
		f := sound()
		f.Unknown[s] = fmt.Errorf("asking: %w", fs.ErrPermission)
		findings := doctor.Judge(f)
		got := find(t, findings, s)
		if got.Level != doctor.Warning || got.Seen != "could not be found out: asking: permission denied" || got.Do != "try again as root" {
			t.Errorf("%s: %+v", s, got)
		}
		if len(findings) != len(doctor.Judge(sound())) {
			t.Errorf("%s: another number of findings", s)
		}
	}
	f := sound()
	f.Unknown[doctor.EventLog] = fmt.Errorf("%w (here)", eventlog.ErrNone)
	if got := find(t, doctor.Judge(f), doctor.EventLog); got.Level != doctor.Note || got.Do == "" {
		t.Errorf("no log: %+v", got)
	}
	f = sound()
	f.Unknown[doctor.TPM] = errors.New("it is gone")
	findings := doctor.Judge(f)
	if got := find(t, findings, doctor.TPM); got.Level != doctor.Problem || got.Seen != "it is gone" || find(t, findings, doctor.PINs) != nil || find(t, findings, doctor.SecureBoot) == nil {
		t.Errorf("no TPM: %+v", findings)
	}
}
