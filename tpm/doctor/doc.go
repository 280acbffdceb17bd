// Package doctor says what is wrong with a machine's TPM, and what to do.
//
//	Gather   asks the TPM, the event log, the firmware, the boot image ──> Facts
//	Judge    Facts ──> Findings: level, what was seen, what to do        pure
//
// What it guarantees: it changes nothing, on the disk or in the TPM; what could
// not be found out is a finding and not passed over; the same facts give the same
// findings.
//
// What it does not protect: all of it is what the running system says of itself.
// A system that lies finds nothing here; what others may believe of a machine has
// to be proven by the TPM to them.
package doctor

// Level says how bad a finding is.
type Level string

// Levels, from the best to the worst.
const (
	OK      Level = "ok"
	Note    Level = "note"    // to be known
	Warning Level = "warning" // protects less than it seems, or will fail in time
	Problem Level = "problem" // keys cannot be sealed, not unsealed, or protect nothing
)

// Subject is what a finding is about.
type Subject string

// Subjects, in the order of the findings.
const (
	TPM        Subject = "TPM"
	Encryption Subject = "encrypted sessions"
	Owner      Subject = "owner"
	RootKey    Subject = "storage root key"
	PINs       Subject = "wrong PINs"
	Endorsed   Subject = "certificate"
	Banks      Subject = "PCR banks"
	Measured   Subject = "measurements"
	EventLog   Subject = "event log"
	SecureBoot Subject = "Secure Boot"
	Signatures Subject = "policy signatures"
	Latch      Subject = "latch"
)

// Finding is one thing that was found.
type Finding struct {
	Subject Subject `json:"subject"`
	Level   Level   `json:"level"`
	Seen    string  `json:"seen"`
	Do      string  `json:"do,omitempty"` // "" when there is nothing to do
}

// Worst returns the worst level of findings.
func Worst(findings []Finding) Level {
	worst := OK
	for _, f := range findings {
		if rank(f.Level) > rank(worst) {
			worst = f.Level
		}
	}
	return worst
}

func rank(l Level) int {
	return map[Level]int{Note: 1, Warning: 2, Problem: 3}[l]
}
