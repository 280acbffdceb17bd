package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
)

func inspectCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "inspect DEVICE",
		Short: "Show a volume's header: where everything lies, and its slots",
		Long: `Shows the header as a map, its keyslots and its tokens. It reads only, and needs
no key: which slots are managed is what the header says of itself, and sync
proves it. Of a LUKS1 volume it shows cipher, slots, and what of it is not used.`,
		Args: args("DEVICE"),
	}
	t.flags(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		v, h, err := t.read(a[0], luks.ReadOnly)
		if errors.Is(err, luks.LUKS1) {
			return t.inspectLUKS1(cmd, a[0], *asJSON)
		} else if err != nil {
			return err
		}
		defer v.Close()
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), inspection(h, v))
		}
		out := cmd.OutOrStdout()
		writeIdentity(out, h, v)
		if err := writeMap(out, layout(h, v)); err != nil {
			return err
		}
		fmt.Fprintln(out)
		return writeSlots(out, slotRows(h))
	}
	return cmd
}

// region is one piece of the header map.
type region struct {
	Offset int64  `json:"offset"`
	Size   int64  `json:"size"`
	What   string `json:"what"`
	Note   string `json:"note,omitempty"`
	mark   byte   // in the bar
}

// layout lists what lies where, in order and without gaps.
func layout(h *luks.Header, v *volume) []region {
	used, room := h.JSONRoom()
	var regions []region
	for i, c := range h.Copies() {
		note := fmt.Sprintf("%s, sequence %d", c.State, c.SeqID)
		if c.Err != nil {
			note = fmt.Sprintf("%s: %s", c.State, c.Err.Reason)
		}
		if i == 0 {
			note += fmt.Sprintf("; JSON takes %d of %d bytes", used, room)
		}
		regions = append(regions, region{int64(i) * h.MetadataSize(), h.MetadataSize(), c.Name + " header", note, 'H'})
	}
	low, size := h.KeyslotsArea()
	slots := h.Keyslots()
	slices.SortFunc(slots, func(a, b luks.Keyslot) int { return cmp.Compare(a.Area.Offset, b.Area.Offset) })
	at := low
	free := func(to int64) {
		if to > at {
			regions = append(regions, region{at, to - at, "free", "", '.'})
		}
	}
	for _, k := range slots {
		free(k.Area.Offset)
		regions = append(regions, region{k.Area.Offset, k.Area.Size, fmt.Sprintf("keyslot %d", k.ID), "", "0123456789abcdefghijklmnopqrstuv"[k.ID%32]})
		at = k.Area.Offset + k.Area.Size
	}
	free(low + size)
	at = low + size
	for _, s := range h.Segments() {
		if s.Offset == 0 {
			continue // detached: the data is elsewhere
		}
		if s.Offset > at {
			regions = append(regions, region{at, s.Offset - at, "padding", "", ' '})
		}
		length := s.Size
		if length == 0 {
			length = max(v.data.Size()-s.Offset, 0)
		}
		regions = append(regions, region{s.Offset, length, "data", fmt.Sprintf("%s, sectors of %d bytes", plain(s.Encryption), s.SectorSize), '#'})
	}
	return regions
}

// bar draws the header area, one character for an equal part of it: H for the
// header copies, a slot's number in base 32, a dot for free room.
func bar(regions []region) string {
	const width = 72
	end := int64(0)
	for _, r := range regions {
		if r.mark != '#' {
			end = max(end, r.Offset+r.Size)
		}
	}
	out := []byte(strings.Repeat(".", width))
	next := int64(0)
	for _, r := range regions {
		if r.mark == '#' || r.mark == '.' || end == 0 {
			continue
		}
		// Every region gets a character of its own, if need be beside its place.
		i := max(r.Offset*width/end, next)
		for next = max((r.Offset+r.Size)*width/end, i+1); i < min(next, width); i++ {
			out[i] = r.mark
		}
	}
	return "[" + string(out) + "|data"
}

func writeIdentity(w io.Writer, h *luks.Header, v *volume) {
	fmt.Fprintf(w, "%s: LUKS2 volume %s\n", v.name, plain(h.UUID()))
	if h.Label() != "" || h.Subsystem() != "" {
		fmt.Fprintf(w, "label %q, subsystem %q\n", h.Label(), h.Subsystem())
	}
	fmt.Fprintf(w, "sequence %d: %s\n", h.SeqID(), h.Why())
	if f := h.Flags(); len(f) > 0 {
		fmt.Fprintf(w, "flags %q\n", f)
	}
	if q := h.Requirements(); len(q) > 0 {
		fmt.Fprintf(w, "requirements %q\n", q)
	}
	fmt.Fprintln(w)
}

func writeMap(w io.Writer, regions []region) error {
	fmt.Fprintln(w, bar(regions))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "OFFSET\tSIZE\tWHAT\tNOTE")
	for _, r := range regions {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\n", r.Offset, bytesText(r.Size), r.What, r.Note)
	}
	return t.Flush()
}

// slotRow is one keyslot for people and for JSON.
type slotRow struct {
	Slot     int    `json:"slot"`
	Kind     string `json:"kind"`
	Token    string `json:"token,omitempty"`
	KDF      string `json:"kdf"`
	Cipher   string `json:"cipher"`
	Priority string `json:"priority"`
	Owner    string `json:"owner"` // "managed" or "foreign", as the header says
	Refusal  string `json:"refusal,omitempty"`
}

func slotRows(h *luks.Header) []slotRow {
	recorded := keys.Recorded(h)
	slots := h.Keyslots()
	slices.SortFunc(slots, func(a, b luks.Keyslot) int { return a.ID - b.ID })
	rows := []slotRow{}
	for _, k := range slots {
		row := slotRow{Slot: k.ID, Kind: "-", KDF: k.KDF.Cost.String(), Cipher: k.Area.Encryption, Priority: k.Priority.String(), Owner: "foreign"}
		if k.Type != "luks2" {
			row.KDF, row.Kind = "-", k.Type
		}
		if kind, ok := recorded[k.ID]; ok {
			row.Kind, row.Owner = kind, "managed"
		}
		for _, t := range h.Tokens() {
			if slices.Contains(t.Keyslots, k.ID) || keys.TokenOf(h, k.ID) != nil && t.ID == k.ID {
				row.Token = fmt.Sprintf("%d:%s", t.ID, t.Type)
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func writeSlots(w io.Writer, rows []slotRow) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SLOT\tOWNER\tKIND\tTOKEN\tPRIORITY\tKEY DERIVATION")
	for _, r := range rows {
		if r.Token == "" {
			r.Token = "-"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\n", r.Slot, r.Owner, plain(r.Kind), plain(r.Token), r.Priority, plain(r.KDF))
	}
	return t.Flush()
}

// plain quotes text from a disk when it is anything but printable ASCII words.
func plain(s string) string {
	for _, c := range s {
		if c < ' ' || c > '~' {
			return fmt.Sprintf("%q", s)
		}
	}
	return s
}

func inspection(h *luks.Header, v *volume) any {
	used, room := h.JSONRoom()
	return struct {
		UUID      string          `json:"uuid"`
		Label     string          `json:"label"`
		Subsystem string          `json:"subsystem"`
		SeqID     uint64          `json:"seqid"`
		Why       string          `json:"why"`
		Copies    [2]luks.Copy    `json:"copies"`
		JSONUsed  int             `json:"json_used"`
		JSONRoom  int             `json:"json_room"`
		Map       []region        `json:"map"`
		Slots     []slotRow       `json:"slots"`
		Header    json.RawMessage `json:"header"`
	}{h.UUID(), h.Label(), h.Subsystem(), h.SeqID(), h.Why(), h.Copies(), used, room, layout(h, v), slotRows(h), h.JSON()}
}
