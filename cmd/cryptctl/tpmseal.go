package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/eventlog"
)

// sealedKey is what commands need that deal with a sealed key.
type sealedKey struct {
	tpmTarget
	pin        pinSource
	publicKey  string
	signatures string
}

func (s *sealedKey) flags(cmd *cobra.Command) {
	s.tpmTarget.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&s.publicKey, "public-key", "", "`FILE` with the key that signs PCR policies, PEM (default: what the boot image brought)")
	f.StringVar(&s.signatures, "signatures", "", "`FILE` with signed PCR policies (default: what the boot image brought)")
}

// boot returns what the boot image brought, with the files that were given in its
// place.
func (s *sealedKey) boot() (tpm.Boot, error) {
	var b tpm.Boot
	var err error
	if tpm.IsMachine(s.spec) {
		if b, err = tpm.ReadBoot(); err != nil {
			return b, err
		}
	}
	for path, to := range map[string]*[]byte{s.publicKey: &b.PublicKey, s.signatures: &b.Signatures} {
		if path == "" {
			continue
		}
		if *to, err = readSmall(path); err != nil {
			return b, err
		}
	}
	return b, nil
}

// readSmall reads a file of at most 4 MiB that holds no secret.
func readSmall(path string) ([]byte, error) {
	text, err := readFile(path, maxToken)
	if errors.Is(err, secret.ErrTooLong) {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxToken)
	} else if err != nil {
		return nil, err
	}
	defer text.Wipe()
	return bytes.Clone(text.Bytes()), nil
}

// opener returns what unseals, and seals nothing.
func (s *sealedKey) opener(d *tpm.Device) (*tpm.Provider, error) {
	return tpm.New(tpm.Options{Device: d, Policy: tpm.Policy{AllowWeak: true}, Boot: s.boot, PIN: s.pin.get})
}

// boundTo are the flags that say what a token without a device is for.
func boundTo(cmd *cobra.Command, req *keys.Request) {
	f := cmd.Flags()
	f.IntVar(&req.Slot, "slot", 0, "keyslot that the token is for")
	f.StringVar(&req.Volume, "volume", "", "`NAME` of the volume that the token is for")
	f.StringVar(&req.UUID, "uuid", "", "`UUID` of the LUKS volume that the token is for")
}

// sealing is what seal was told.
type sealing struct {
	sealedKey
	req     keys.Request
	policy  tpm.Policy
	pcrs    string
	format  string
	keyFile string
	to      string
	log     *string
}

func (s *sealing) flags(cmd *cobra.Command) {
	s.sealedKey.flags(cmd)
	s.pin.flag(cmd)
	boundTo(cmd, &s.req)
	f := cmd.Flags()
	f.StringVar(&s.pcrs, "pcrs", "7", "`LIST` of PCRs that must have their present values, such as 4,7; none is no PCR")
	f.BoolVar(&s.policy.Signed, "signed", false, "PCR 11 must have a value that the boot image's key signed")
	f.BoolVar(&s.policy.Latch, "latch", false, "the latch must be open: see cryptctl tpm latch")
	f.BoolVar(&s.policy.AllowWeak, "allow-weak", false, "allow a policy that other systems can fulfil")
	f.StringVar(&s.format, "format", string(tpm.Own), "`KIND` of token: cryptctl, talos or systemd")
	f.StringVar(&s.keyFile, "key-file", "", "`FILE` with the secret, every byte of it; - is stdin (default: a random one)")
	f.StringVarP(&s.to, "output", "o", "-", "`FILE` for the token; - is stdout")
	s.log = eventLogFlag(cmd)
}

func tpmSealCommand() *cobra.Command {
	var s sealing
	cmd := &cobra.Command{
		Use:   "seal -o FILE",
		Short: "Seal a secret in the TPM, and write the token",
		Long: `Seals a secret to the state that the machine is in, unseals it once to see that it
works, and writes the token, as a LUKS2 header would have it. For trying policies
out: volumes get their keys by format and sync. Without --key-file the secret is
32 random bytes, as base64, and only the token has it.

A token of cryptctl keeps a record of the events behind its PCRs, for explain, where
the event log gives them the values that they have.

A policy that protects nothing is refused: one with neither a PIN nor PCR 4, 7, 17
or 18. The other PCRs are as they are for any system, or it can extend them to the
same values, a signed PCR 11 too. --allow-weak does it all the same.`,
		Args: args(),
	}
	s.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		token, err := s.seal(cmd)
		if err != nil {
			return err
		}
		if err := writeFile(cmd, s.to, append(token, '\n')); err != nil || s.to == "-" {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "sealed; the token is in %s\n", s.to)
		return nil
	}
	return cmd
}

func (s *sealing) seal(cmd *cobra.Command) (json.RawMessage, error) {
	err := oneStdin(unasked(s.keyFile, s.pin.file)...)
	if err != nil {
		return nil, err
	}
	if s.policy.PCRs, err = pcrList("pcrs", s.pcrs); err != nil {
		return nil, err
	}
	s.policy.PIN = s.pin.file != ""
	d, err := s.dial()
	if err != nil {
		return nil, err
	}
	p, err := s.provider(d)
	if err != nil {
		return nil, err
	}
	token, err := sealInto(cmd.Context(), p, s.req, s.keyFile)
	if kept, _ := tpm.RecordOf(token); err == nil && kept == nil && *s.log != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "note: the token keeps no record of events: there are no PCRs in its policy, the event log does not give their values, "+
			"the record is too long, or the format has none")
	}
	return token, err
}

// provider returns what seals as the flags say. An event log that was given must be
// one; nothing else of it matters to a seal.
func (s *sealing) provider(d *tpm.Device) (*tpm.Provider, error) {
	opts := tpm.Options{Device: d, Format: tpm.Format(s.format), Policy: s.policy, Boot: s.boot, PIN: s.pin.get}
	if *s.log != "" {
		log, err := eventlog.Read(*s.log)
		if err != nil {
			return nil, fmt.Errorf("--event-log: %w", err)
		}
		opts.EventLog = func() (*eventlog.Log, error) { return log, nil }
	}
	return tpm.New(opts)
}

// sealInto seals what is in a file, or a random secret.
func sealInto(ctx context.Context, p *tpm.Provider, req keys.Request, keyFile string) (json.RawMessage, error) {
	if keyFile == "" {
		made, token, err := p.Enroll(ctx, req)
		made.Wipe()
		return token, err
	}
	given, err := readKey(ctx, keyFile)
	if err != nil {
		return nil, err
	}
	defer given.Wipe()
	return p.Seal(ctx, req, given)
}

// tokenSource is where a token comes from: a file, or the slot of a volume.
type tokenSource struct {
	target
	req      keys.Request
	jsonFile string
}

func (t *tokenSource) flags(cmd *cobra.Command) {
	t.target.flags(cmd)
	cmd.Flags().StringVar(&t.jsonFile, "json-file", "", "`FILE` with a token, in place of a device; - is stdin")
}

// oneDevice lets a command have DEVICE or not.
func oneDevice(cmd *cobra.Command, given []string) error {
	if len(given) == 0 {
		return nil
	}
	return args("DEVICE")(cmd, given)
}

// read returns the token, and what it is for.
func (t *tokenSource) read(cmd *cobra.Command, a []string) (keys.Request, json.RawMessage, error) {
	switch {
	case (len(a) == 0) == (t.jsonFile == ""):
		return t.req, nil, usageError("give a DEVICE with --slot, or a token with --json-file; see %s --help", cmd.CommandPath())
	case t.jsonFile != "":
		raw, err := readToken(cmd.Context(), t.jsonFile)
		return t.req, raw, err
	case !cmd.Flags().Changed("slot"):
		return t.req, nil, usageError("--slot says which slot of %s is meant", a[0])
	}
	v, h, err := t.target.read(a[0], luks.ReadOnly)
	if err != nil {
		return t.req, nil, err
	}
	defer v.Close()
	raw := sealedToken(h, t.req.Slot)
	if raw == nil {
		return t.req, nil, fmt.Errorf("%s: slot %d has no token of a key that is sealed in a TPM; cryptctl token list shows those there are", v.name, t.req.Slot)
	}
	req := t.req
	req.UUID = h.UUID()
	return req, raw, nil
}

// sealedToken finds the token of a slot: that of the same id, or, as other tools
// number them, one that names the slot.
func sealedToken(h *luks.Header, slot int) json.RawMessage {
	own := keys.TokenOf(h, slot)
	for _, t := range h.Tokens() {
		if !slices.Contains(tpm.Tokens(), t.Type) {
			continue
		}
		if t.ID == slot && own != nil || slices.Contains(t.Keyslots, slot) {
			return t.JSON
		}
	}
	return nil
}

func tpmUnsealCommand() *cobra.Command {
	var s sealedKey
	var t tokenSource
	cmd := &cobra.Command{
		Use:   "unseal [DEVICE --slot N | --json-file FILE]",
		Short: "Unseal the secret of a token",
		Long: `Has the TPM give back what is sealed in the token of a slot, or in a token of its
own, of cryptctl, Talos or systemd, and says whether it did and how long the secret
is. The secret itself, which opens the slot, is written to stdout with --reveal
only, and nothing else is written then.

A token of cryptctl opens for the slot and volume that it was made for: a volume
that a node made wants --volume.`,
		Args: oneDevice,
	}
	s.flags(cmd)
	s.pin.flag(cmd)
	t.flags(cmd)
	boundTo(cmd, &t.req)
	reveal := cmd.Flags().Bool("reveal", false, "write the secret to stdout")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		opened, err := s.unseal(cmd, &t, a)
		if err != nil {
			return err
		}
		defer opened.Passphrase.Wipe()
		if *reveal {
			_, err := cmd.OutOrStdout().Write(opened.Passphrase.Bytes())
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "unsealed, %d bytes\n", opened.Passphrase.Len())
		return nil
	}
	return cmd
}

func (s *sealedKey) unseal(cmd *cobra.Command, t *tokenSource, a []string) (tpm.Opened, error) {
	if err := oneStdin(append(unasked(s.pin.file), t.jsonFile)...); err != nil {
		return tpm.Opened{}, err
	}
	req, raw, err := t.read(cmd, a)
	if err != nil {
		return tpm.Opened{}, err
	}
	d, err := s.dial()
	if err != nil {
		return tpm.Opened{}, err
	}
	p, err := s.opener(d)
	if err != nil {
		return tpm.Opened{}, err
	}
	opened, err := p.Open(cmd.Context(), req, raw)
	return opened, withEnvelopeHint(err)
}

// withEnvelopeHint adds what to give, when a token is for something else than was
// said.
func withEnvelopeHint(err error) error {
	if tpm.ReasonOf(err) == tpm.OtherSlot {
		return fmt.Errorf("%w; see that --slot, --volume and --uuid are those that it was sealed for", err)
	}
	return err
}
