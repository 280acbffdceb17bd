package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/probe/marker"
)

func checkCommand() *cobra.Command {
	var t target
	var k keySource
	cmd := &cobra.Command{
		Use:   "check DEVICE",
		Short: "Say whether a header is sound, damaged or refused",
		Long: `Checks both header copies by the rules of the format and by what cryptctl is
willing to unlock, without a key. It never writes.

Exit code 0: sound. 3: damaged but readable, header repair mends it. 4: refused,
because the header is unreadable, not allowed by the format or not trusted.`,
		Args: args("DEVICE"),
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&k.limit, "max-kdf-memory", "", "refuse key derivations that need more than this `SIZE` (default 4G)")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		limits, err := k.limits()
		if err != nil {
			return err
		}
		v, err := t.open(a[0], luks.ReadOnly)
		if err != nil {
			return err
		}
		defer v.Close()
		r, err := examine(v, limits)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		if *asJSON {
			err = printJSON(out, r)
		} else {
			fmt.Fprintf(out, "%s: %s\n", v.name, r.Verdict)
			for _, f := range r.Findings {
				fmt.Fprintf(out, "  %-8s %s\n", f.Weight, f.Text)
			}
		}
		if code := map[string]int{"damaged": exitDamaged, "refused": exitRefused}[r.Verdict]; code != 0 && err == nil {
			return &exitError{code: code}
		}
		return err
	}
	return cmd
}

// verdict is what check says.
type verdict struct {
	Verdict  string    `json:"verdict"` // "sound", "damaged" or "refused"
	Findings []finding `json:"findings"`
}

type finding struct {
	Weight string    `json:"weight"` // "notice", "damaged" or "refused"
	Code   luks.Code `json:"code"`
	Text   string    `json:"text"`
}

func (v *verdict) add(weight string, code luks.Code, format string, args ...any) {
	v.Findings = append(v.Findings, finding{weight, code, fmt.Sprintf(format, args...)})
	if weight == "refused" || weight == "damaged" && v.Verdict == "sound" {
		v.Verdict = weight
	}
}

// examine gathers all that can be said without a key. Only I/O is an error.
func examine(v *volume, limits kdf.Limits) (*verdict, error) {
	r := &verdict{Verdict: "sound", Findings: []finding{}}
	h, err := luks.Read(v.header)
	var refusal *luks.Refusal
	switch {
	case errors.As(err, &refusal):
		r.unreadable(v, err)
		return r, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", v.name, err)
	}
	for _, c := range h.Copies() {
		switch c.State {
		case luks.CopyStale:
			r.add("damaged", "copy-stale", "the %s copy is stale (sequence %d, in force is %d): a change was interrupted; header repair mends it", c.Name, c.SeqID, h.SeqID())
		case luks.CopyBad, luks.CopyAbsent:
			r.add("damaged", c.Err.Code, "the %s copy is %s: %s; header repair mends it", c.Name, c.State, c.Err.Reason)
		}
	}
	for _, refusal := range h.Trust(limits) {
		weight := "refused"
		if refusal.Code == luks.KeyslotUnbound {
			weight = "notice"
		}
		r.add(weight, refusal.Code, "%s: %s", refusal.Where, refusal.Reason)
	}
	if len(h.Keyslots()) == 0 {
		r.add("notice", "no-keyslots", "there is no keyslot: the volume was erased, and only a header backup opens it")
	}
	for _, s := range h.Segments() {
		if need := max(s.Size, int64(s.SectorSize)); s.Offset > v.data.Size()-need {
			r.add("damaged", luks.DeviceTooSmall, "the data of segment %d begins at byte %d and takes at least %d bytes, and the device ends at byte %d: it was shrunk or truncated", s.ID, s.Offset, need, v.data.Size())
		}
	}
	left, err := h.Leftovers()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v.name, err)
	}
	if len(left) > 0 {
		var n int64
		for _, a := range left {
			n += a.Size
		}
		r.add("notice", "leftovers", "%s from byte %d on are not zero and no keyslot uses them: left by an interrupted change, or filled in by cryptsetup; the next change wipes them", bytesText(n), left[0].Offset)
	}
	return r, nil
}

// unreadable says why there is no header, and what there is instead.
func (v *verdict) unreadable(vol *volume, err error) {
	note := make([]byte, marker.Size)
	if n, _ := vol.header.ReadAt(note, 0); n == len(note) {
		if m, ok := marker.Decode(note); ok {
			v.add("refused", "format-interrupted", "a format of volume %s was interrupted before it was done; format again", m.UUID)
			return
		}
	}
	reasons := []error{err}
	if both, ok := err.(interface{ Unwrap() []error }); ok { // one for each copy
		reasons = both.Unwrap()
	}
	for _, reason := range reasons {
		v.add("refused", codeOf(reason), "%v", reason)
	}
}

func codeOf(err error) luks.Code {
	var r *luks.Refusal
	errors.As(err, &r)
	return r.Code
}
