package tpm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/keys"
)

// Reason is why a TPM did not do what it was asked.
type Reason string

// Reasons, and the class of package keys that errors of each wrap.
const (
	NoTPM            Reason = "no TPM"                   // ErrUnavailable
	LockedOut        Reason = "locked out"               // ErrUnavailable: too many wrong PINs
	Latched          Reason = "latch closed"             // ErrUnavailable: until the next boot
	Faulty           Reason = "TPM fault"                // ErrUnavailable: failed, or not to be believed
	SignatureMissing Reason = "policy signature missing" // ErrUnavailable: sealing again would not help
	SignatureForeign Reason = "policy signed by another" // ErrStale
	PCRChanged       Reason = "PCR changed"              // ErrStale
	Cleared          Reason = "TPM cleared"              // ErrStale: other storage key, same endorsement key
	OtherTPM         Reason = "another TPM"              // ErrStale: both keys are others, or only the first is known
	PolicyChanged    Reason = "policy changed"           // ErrStale: it is not known which part of it
	PINWrong         Reason = "PIN wrong"                // ErrDenied
	PINMissing       Reason = "PIN missing"              // ErrUnavailable
	Damaged          Reason = "token damaged"            // ErrMalformed
	OtherSlot        Reason = "token of another slot"    // ErrDenied: or an envelope that was changed
	Refused          Reason = "policy refused"           // ErrDenied: it protects nothing, or cannot work
)

// Error is a failure with its reason.
type Error struct {
	Reason Reason
	// PCRs that changed, or one of which did; with [PCRChanged] only.
	PCRs []int
	// TriesLeft before the TPM locks itself, -1 when it did not say; with
	// [PINWrong] only.
	TriesLeft int
	text      string
	cause     error
}

// Error says what is wrong and what to do.
func (e *Error) Error() string {
	text := string(e.Reason) + ": " + e.text
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Unwrap returns the class of package keys, and the cause.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.class()}
	}
	return []error{e.class(), e.cause}
}

func (e *Error) class() error {
	switch e.Reason {
	case SignatureForeign, PCRChanged, Cleared, OtherTPM, PolicyChanged:
		return keys.ErrStale
	case PINWrong, OtherSlot, Refused:
		return keys.ErrDenied
	case Damaged:
		return keys.ErrMalformed
	}
	return keys.ErrUnavailable
}

// ReasonOf returns the reason of an error of this package; "" of another.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func fail(r Reason, cause error, format string, args ...any) *Error {
	return &Error{Reason: r, TriesLeft: -1, text: fmt.Sprintf(format, args...), cause: cause}
}

// pcrChanged names the PCRs of which at least one changed.
func pcrChanged(pcrs []int, known bool) *Error {
	slices.Sort(pcrs)
	text := "another value than when the key was sealed: PCR "
	if !known && len(pcrs) > 1 {
		text = "at least one has another value than when the key was sealed: PCR "
	}
	e := fail(PCRChanged, nil, "%s; open the volume with another key and seal again", text+named(pcrs))
	e.PCRs = pcrs
	return e
}

// named lists PCRs with what is measured into them.
func named(pcrs []int) string {
	names := make([]string, len(pcrs))
	for i, p := range pcrs {
		names[i] = strconv.Itoa(p) + pcrMeaning(p)
	}
	return strings.Join(names, ", ")
}

// pcrMeaning says what is measured into a PCR (TCG PC Client Platform Firmware
// Profile, 3.3.4; systemd's documentation of its PCRs).
func pcrMeaning(pcr int) string {
	meaning := map[int]string{
		0: "firmware", 1: "firmware settings", 2: "option ROMs", 3: "option ROM settings", 4: "boot loader",
		5: "partition table and boot settings", 7: "Secure Boot state and keys", 8: "boot loader commands",
		9: "files of the boot loader", 11: "unified kernel image", 12: "kernel command line and credentials",
		13: "system extensions", 14: "shim's keys", 15: "volumes",
	}[pcr]
	if meaning == "" {
		return ""
	}
	return " (" + meaning + ")"
}

// tpmFault classifies what a TPM answered in doing something. Errors that have a
// reason keep it.
func tpmFault(err error, doing string) error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fail(Faulty, err, "gave up while asking the TPM to %s", doing)
	case errors.Is(err, tpm2.TPMRCLockout):
		return lockedOut()
	}
	return fail(Faulty, err, "the TPM did not %s", doing)
}

func lockedOut() *Error {
	return fail(LockedOut, nil, "too many wrong PINs; wait until the TPM takes the next one, or use another key")
}
