package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/meta"
	"github.com/cryptctl/cryptctl/secret"
)

func metaCommand() *cobra.Command {
	return group("meta", "Look at and change the META partition of Talos",
		metaListCommand(), metaGetCommand(), metaSetCommand(), metaDeleteCommand(), metaRepairCommand())
}

// metaTarget is META as its flags name it: a partition's own device, or a place
// inside an image.
type metaTarget struct{ target }

func (t *metaTarget) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.partition, "partition", "", "META is the partition with this `LABEL` in the image")
	f.StringVar(&t.offset, "offset", "", "META begins at this `BYTE` of the image (1M, 512, ...)")
}

// open opens META, which takes 1 MiB from an offset on.
func (t *metaTarget) open(path string, mode luks.Mode) (*volume, error) {
	v, err := t.target.open(path, mode)
	if err != nil || t.offset == "" || v.data.Size() < meta.Size {
		return v, err
	}
	section, err := luks.Section(v.data, 0, meta.Size)
	if err != nil {
		v.Close()
		return nil, fmt.Errorf("%s: %w", v.name, err)
	}
	v.data = section
	return v, nil
}

// read opens META and reads it. What is damaged is said on stderr, unless the
// command says it itself.
func (t *metaTarget) read(cmd *cobra.Command, path string, mode luks.Mode) (*volume, *meta.Meta, error) {
	v, err := t.open(path, mode)
	if err != nil {
		return nil, nil, err
	}
	m, err := meta.Read(v.data)
	if err != nil {
		v.Close()
		return nil, nil, t.explain(v, err)
	}
	for _, d := range m.Damage() {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %s: META is damaged: %s\n", v.name, d)
	}
	return v, m, nil
}

// explain adds what to do next to errors of reading.
func (t *metaTarget) explain(v *volume, err error) error {
	var damage *meta.DamageError
	switch {
	case errors.As(err, &damage):
		return fmt.Errorf("%s: %w: cryptctl meta repair --reset", v.name, err)
	case v.data.Size() != meta.Size && t.partition == "" && t.offset == "":
		return fmt.Errorf("%s: %w; META inside an image needs --partition META or --offset", v.name, err)
	}
	return fmt.Errorf("%s: %w", v.name, err)
}

// metaRow is one value for people and for JSON.
type metaRow struct {
	Tag   int    `json:"tag"`
	Name  string `json:"name"` // "" when Talos has none
	Bytes int    `json:"bytes"`
	Value []byte `json:"value,omitempty"` // only when it was asked for, and is no secret
}

func newMetaRow(tag uint32, value []byte, show bool) metaRow {
	r := metaRow{Tag: int(tag), Bytes: len(value)}
	if t := meta.Tag(tag); tag <= 0xff && t.String() != fmt.Sprintf("0x%02x", tag) {
		r.Name = t.String()
	}
	if show && !mayBeSecret(tag, value) {
		r.Value = value
	}
	return r
}

// mayBeSecret reports values that may hold a passphrase: the encryption config
// of STATE, and what salvage may take for another value while it is a part of
// that.
func mayBeSecret(tag uint32, value []byte) bool {
	return tag == uint32(meta.StateEncryptionConfig) || tag > 0xff || bytes.Contains(value, []byte("KeyData"))
}

func metaListCommand() *cobra.Command {
	var t metaTarget
	cmd := &cobra.Command{
		Use:   "list DEVICE",
		Short: "List the values of META",
		Long: `Lists the tags that have a value, with the names that Talos has for them. META is
a partition of exactly 1 MiB, or with --partition or --offset a place in an image.
With --values the values are shown too, quoted, or in JSON as base64; that of tag
9 (StateEncryptionConfig), which may hold a passphrase, never is: see meta get.

Exit code 0: sound. 3: damaged but readable; all values are there, and meta repair
mends it. 4: unreadable, because both copies are damaged.`,
		Args: args("DEVICE"),
	}
	t.flags(cmd)
	values := cmd.Flags().Bool("values", false, "show the values, except that of tag 9")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		v, m, err := t.read(cmd, a[0], luks.ReadOnly)
		var damage *meta.DamageError
		if errors.As(err, &damage) {
			return &exitError{exitRefused, err}
		} else if err != nil {
			return err
		}
		defer v.Close()
		rows := []metaRow{}
		for _, tag := range m.Tags() {
			value, _ := m.Get(tag)
			rows = append(rows, newMetaRow(uint32(tag), value, *values))
		}
		if *asJSON {
			used, room := m.Room()
			err = printJSON(cmd.OutOrStdout(), map[string]any{"values": rows, "used": used, "room": room, "damage": orEmpty(m.Damage())})
		} else {
			err = writeMeta(cmd.OutOrStdout(), rows, *values)
		}
		if err == nil && len(m.Damage()) > 0 {
			return &exitError{code: exitDamaged}
		}
		return err
	}
	return cmd
}

func writeMeta(out io.Writer, rows []metaRow, values bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head := "TAG\tNAME\tBYTES"
	if values {
		head += "\tVALUE"
	}
	fmt.Fprintln(w, head)
	for _, r := range rows {
		name := r.Name
		if name == "" {
			name = "-"
		}
		fmt.Fprintf(w, "%d\t%s\t%d", r.Tag, name, r.Bytes)
		switch {
		case values && r.Value == nil && r.Bytes > 0:
			fmt.Fprint(w, "\t(not shown)")
		case values:
			fmt.Fprintf(w, "\t%q", r.Value)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func metaGetCommand() *cobra.Command {
	var t metaTarget
	cmd := &cobra.Command{
		Use:   "get DEVICE TAG",
		Short: "Write one value to stdout, byte for byte",
		Long: `Writes the value of a tag to stdout, byte for byte. TAG is a number such as 9 or
0x09, or Talos' name such as StateEncryptionConfig. That one may hold a passphrase
in clear, so it needs --show-secrets. A terminal gets text only.`,
		Args: args("DEVICE", "TAG"),
	}
	t.flags(cmd)
	secrets := cmd.Flags().Bool("show-secrets", false, "write tag 9 too, which may hold a passphrase")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		tag, err := parseTag(a[1])
		if err != nil {
			return err
		}
		if tag == meta.StateEncryptionConfig && !*secrets {
			return usageError("tag 9 (%s) may hold a passphrase in clear; give --show-secrets to write it", tag)
		}
		v, m, err := t.read(cmd, a[0], luks.ReadOnly)
		if err != nil {
			return err
		}
		defer v.Close()
		value, ok := m.Get(tag)
		if !ok {
			return noValue(v, tag)
		}
		defer clear(value)
		if term.IsTerminal(int(os.Stdout.Fd())) && bytes.ContainsFunc(value, unprintable) {
			return fmt.Errorf("%s: the value of %s is not plain text, which a terminal may act on; send it to a file", v.name, tag)
		}
		_, err = cmd.OutOrStdout().Write(value)
		return err
	}
	return cmd
}

// unprintable reports what a terminal may take for more than a character.
func unprintable(r rune) bool { return r != '\n' && r != '\t' && (r < ' ' || r > '~') }

func parseTag(s string) (meta.Tag, error) {
	tag, err := meta.ParseTag(s)
	if err != nil {
		return 0, usageError("%w", err)
	}
	return tag, nil
}

func noValue(v *volume, tag meta.Tag) error {
	return fmt.Errorf("%s: META has no value of tag %d (%s)", v.name, uint8(tag), tag)
}

func metaSetCommand() *cobra.Command {
	var t metaTarget
	var from string
	cmd := &cobra.Command{
		Use:   "set DEVICE TAG --value-file FILE",
		Short: "Give a tag a value, as one step",
		Long: `Stores the content of a file, every byte of it, as the value of a tag. A power cut
leaves the old value or the new one; a damaged copy is mended on the way. A value
of tag 9 (StateEncryptionConfig) is checked first: it must be one that a node
reads.`,
		Args: args("DEVICE", "TAG"),
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&from, "value-file", "", "`FILE` with the value, every byte of it; - is stdin")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		tag, err := parseTag(a[1])
		if err != nil {
			return err
		}
		value, err := readValue(cmd.Context(), from, tag)
		if err != nil {
			return err
		}
		defer value.Wipe()
		v, m, err := t.read(cmd, a[0], luks.ReadWrite)
		if err != nil {
			return err
		}
		defer v.Close()
		if err := m.Set(tag, value.Bytes()); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		if err := cmd.Context().Err(); err != nil {
			return err
		}
		if err := m.Commit(); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "tag %d (%s) has %d bytes now\n", uint8(tag), tag, value.Len())
		return nil
	}
	return cmd
}

// readValue reads a value and checks one that a node must be able to read.
func readValue(ctx context.Context, path string, tag meta.Tag) (*secret.Bytes, error) {
	if path == "" {
		return nil, usageError("--value-file says where the value is; - is stdin")
	}
	value, err := readInput(ctx, path, meta.Capacity)
	if errors.Is(err, secret.ErrTooLong) {
		return nil, fmt.Errorf("read the value from %s: %w", path, err)
	} else if err != nil {
		return nil, fmt.Errorf("value: %w", err)
	}
	if tag != meta.StateEncryptionConfig {
		return value, nil
	}
	e, err := meta.ParseEncryption(value.Bytes())
	if err != nil {
		value.Wipe()
		return nil, fmt.Errorf("%s: %w; nothing was written", path, err)
	}
	e.Wipe()
	return value, nil
}

func metaDeleteCommand() *cobra.Command {
	var t metaTarget
	cmd := &cobra.Command{
		Use:   "delete DEVICE TAG",
		Short: "Take away the value of a tag, as one step",
		Args:  args("DEVICE", "TAG"),
	}
	t.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		tag, err := parseTag(a[1])
		if err != nil {
			return err
		}
		v, m, err := t.read(cmd, a[0], luks.ReadWrite)
		if err != nil {
			return err
		}
		defer v.Close()
		if _, ok := m.Get(tag); !ok {
			return noValue(v, tag)
		}
		m.Delete(tag)
		if err := m.Commit(); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "tag %d (%s) has no value any more\n", uint8(tag), tag)
		return nil
	}
	return cmd
}
