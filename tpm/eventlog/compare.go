package eventlog

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// Agreement says how the value of a PCR stands to the log.
type Agreement string

// How a value can stand to the log.
const (
	Agrees    Agreement = "agrees"    // the log gives this value
	Phases    Agreement = "phases"    // so it does, followed by phase words of systemd or Talos
	Unlogged  Agreement = "unlogged"  // the log has no event for it, but it was extended
	Untouched Agreement = "untouched" // the log has events for it, but it is as after a reset
	Deviates  Agreement = "deviates"  // another value than the log gives
)

// Verdict is what Compare found of one PCR.
type Verdict struct {
	PCR       int
	Bank      pcr.Bank
	Agreement Agreement
	Phases    pcr.Path // the words, with Phases
	Events    int      // how many events of the log extended it
	Logged    []byte   // the value by the log
	Given     []byte
}

// Accounted says whether the log explains the value.
func (v *Verdict) Accounted() bool { return v.Agreement == Agrees || v.Agreement == Phases }

// String says it in words.
func (v *Verdict) String() string {
	head := fmt.Sprintf("PCR %d (%s) of %s ", v.PCR, Purpose(v.PCR), v.Bank)
	switch v.Agreement {
	case Agrees:
		return head + fmt.Sprintf("has the value that the event log gives it (%d events)", v.Events)
	case Phases:
		return head + "has the value of the event log and, after that, the phases " + v.Phases.String()
	case Unlogged:
		return head + "was extended, but the event log has nothing for it: the operating system did that, or a program in it"
	case Untouched:
		return head + fmt.Sprintf("is as after a reset, but the event log has %d events for it: the TPM was reset, or the firmware does not extend this bank", v.Events)
	}
	return head + fmt.Sprintf("is %x, but the event log's %d events give %x: something extended it that is not in the log, or the log is not of this boot",
		v.Given, v.Events, v.Logged)
}

// Compare holds values of PCRs against the log, in ascending order of the PCRs.
// It fails where Replay does, and for a value that cannot be one of the bank.
func (l *Log) Compare(bank pcr.Bank, given map[int][]byte) ([]Verdict, error) {
	logged, err := l.Replay(bank)
	if err != nil {
		return nil, err
	}
	verdicts := make([]Verdict, 0, len(given))
	for index, value := range given {
		if index < 0 || index >= pcr.Count || len(value) != bank.Size() {
			return nil, fmt.Errorf("PCR %d with a value of %d bytes cannot be one of %s", index, len(value), bank)
		}
		v := Verdict{PCR: index, Bank: bank, Given: value, Logged: logged[index], Events: len(l.of(index))}
		v.judge()
		verdicts = append(verdicts, v)
	}
	slices.SortFunc(verdicts, func(a, b Verdict) int { return a.PCR - b.PCR })
	return verdicts, nil
}

func (v *Verdict) judge() {
	path, phases := pcr.Path(nil), false
	if v.PCR == kernelPCR {
		path, phases = v.Bank.FindPath(v.Logged, v.Given)
	}
	switch {
	case bytes.Equal(v.Given, v.Logged):
		v.Agreement = Agrees
	case phases:
		v.Agreement, v.Phases = Phases, path
	case v.Events == 0:
		v.Agreement = Unlogged
	case bytes.Equal(v.Given, v.Bank.Initial(v.PCR)):
		v.Agreement = Untouched
	default:
		v.Agreement = Deviates
	}
}

// kernelPCR is what systemd-stub measures a unified kernel image into, and
// systemd the phases.
const kernelPCR = 11

// Purpose says in a few words what a PCR is for.
func Purpose(index int) string {
	purposes := [...]string{
		"firmware code", "firmware settings", "code of option ROMs", "settings of option ROMs", "boot loader code",
		"boot loader settings and partition table", "manufacturer's own", "Secure Boot state and keys",
		"boot loader's own", "kernel command line and initrd", "IMA", "unified kernel image and boot phases",
		"command line additions and credentials", "system extensions", "keys of shim", "system identity and volume keys",
		"for debugging",
	}
	switch {
	case index >= 0 && index < len(purposes):
		return purposes[index]
	case index < 0 || index >= pcr.Count:
		return "there is no such PCR"
	case index <= 22:
		return "dynamic root of trust"
	}
	return "for applications"
}
