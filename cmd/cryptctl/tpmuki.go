package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/pcrsig"
	"github.com/cryptctl/cryptctl/tpm/uki"
)

// kernelImage is a unified kernel image, as flags say how it is started.
type kernelImage struct {
	phases  []string
	banks   []string
	stub    string
	profile int
}

func (i *kernelImage) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&i.phases, "phase", []string{"systemd"}, "boot phase `PATH`, as in enter-initrd:leave-initrd (repeatable); systemd and talos are the paths that these sign")
	f.StringArrayVar(&i.banks, "bank", []string{"sha256"}, "PCR `BANK`: sha1, sha256, sha384 or sha512 (repeatable)")
	f.StringVar(&i.stub, "stub", "", "`VERSION` of the image's systemd-stub, such as 252 (default: what the image says)")
	f.IntVar(&i.profile, "profile", 0, "profile of the image that is chosen in the boot menu")
}

// options reads the flags.
func (i *kernelImage) options() (uki.Options, error) {
	var o uki.Options
	for _, name := range i.banks {
		bank, err := pcr.BankByName(name)
		if err != nil {
			return o, usageError("--bank: %w", err)
		}
		o.Banks = append(o.Banks, bank)
	}
	for _, text := range i.phases {
		switch text {
		case "systemd":
			o.Paths = append(o.Paths, pcr.SystemdPaths()...)
		case "talos":
			o.Paths = append(o.Paths, pcr.TalosPath())
		default:
			path, err := pcr.ParsePath(text)
			if err != nil {
				return o, usageError("--phase: %w", err)
			}
			o.Paths = append(o.Paths, path)
		}
	}
	if i.stub != "" {
		var err error
		if o.Stub, err = uki.ParseStub(i.stub); err != nil {
			return o, usageError("--stub: %w", err)
		}
	}
	return o, nil
}

// with opens an image and predicts what it does, for f.
func (i *kernelImage) with(path string, f func(uki.Sections, *uki.Prediction) error) error {
	o, err := i.options()
	if err != nil {
		return err
	}
	u, err := uki.Open(path)
	if err != nil {
		return err
	}
	defer u.Close()
	if o.Stub == 0 {
		o.Stub = u.Stub
	}
	sections, err := u.Sections(i.profile)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	p, err := sections.Predict(o)
	switch {
	case errors.Is(err, uki.ErrUnknownStub):
		return fmt.Errorf("%s: %w with --stub", path, err)
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	}
	return f(sections, p)
}

func tpmPredictCommand() *cobra.Command {
	var i kernelImage
	cmd := &cobra.Command{
		Use:   "predict UKI",
		Short: "Say what a unified kernel image will make of PCR 11",
		Long: `Computes, without a TPM and without booting, the value that PCR 11 will have when
the image was started and the boot phases were passed, in the form in which
systemd-measure writes it, and whether the image has a signature for it. Which
sections are measured depends on the version of the image's systemd-stub: a table
shows what each version measures.`,
		Args: args("UKI"),
	}
	i.flags(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		return i.with(a[0], func(s uki.Sections, p *uki.Prediction) error {
			r, err := newPrediction(s, p)
			if err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			if *asJSON {
				return printJSON(cmd.OutOrStdout(), r)
			}
			return r.write(cmd.OutOrStdout(), p.Stub)
		})
	}
	return cmd
}

// prediction is what predict shows.
type prediction struct {
	Stub     int                `json:"stub"`
	Key      string             `json:"key"` // fingerprint of .pcrpkey; "" when there is none
	Sections []predictedSection `json:"sections"`
	Values   []predictedValue   `json:"values"`
}

type predictedSection struct {
	Name     string            `json:"name"`
	Size     int64             `json:"size"`
	Measured bool              `json:"measured"`
	Since    int               `json:"since"` // the first stub that measures it
	Digests  map[string]string `json:"digests,omitempty"`
}

type predictedValue struct {
	Bank   string `json:"bank"`
	Phases string `json:"phases"`
	Value  string `json:"value"`
	Policy string `json:"policy"`
	Signed string `json:"signed"` // by .pcrpkey's key: yes, no, or why it does not count
}

// generations are the versions of systemd-stub from which on it measures more.
func generations() []uki.Stub {
	var found []uki.Stub
	for s := uki.Stub(252); s < 300; s++ {
		if s == 252 || slices.ContainsFunc(uki.SectionNames(), func(n string) bool { return s.Measures(n) && !(s - 1).Measures(n) }) {
			found = append(found, s)
		}
	}
	return found
}

func since(name string) int {
	for _, s := range generations() {
		if s.Measures(name) {
			return int(s)
		}
	}
	return 0
}

func newPrediction(s uki.Sections, p *uki.Prediction) (prediction, error) {
	r := prediction{Stub: int(p.Stub), Sections: []predictedSection{}, Values: []predictedValue{}}
	for _, m := range p.Measured {
		row := predictedSection{m.Name, m.Size, true, since(m.Name), map[string]string{}}
		for bank, digest := range m.Digests {
			row.Digests[bank.String()] = hex.EncodeToString(digest)
		}
		r.Sections = append(r.Sections, row)
	}
	for _, section := range s {
		if slices.Contains(p.Ignored, section.Name) || section.Name == uki.SectionSignatures {
			r.Sections = append(r.Sections, predictedSection{section.Name, section.Size, false, since(section.Name), nil})
		}
	}
	order := uki.SectionNames()
	slices.SortStableFunc(r.Sections, func(a, b predictedSection) int {
		return slices.Index(order, a.Name) - slices.Index(order, b.Name)
	})
	sign, err := r.signatures(s)
	if err != nil {
		return r, err
	}
	for i := range p.Values {
		v := &p.Values[i]
		r.Values = append(r.Values, predictedValue{v.Bank.String(), v.Path.String(), hex.EncodeToString(v.Value), hex.EncodeToString(v.Policy), sign(*v)})
	}
	return r, nil
}

// signatures returns what says whether a value is signed.
func (r *prediction) signatures(s uki.Sections) (func(uki.Value) string, error) {
	key, err := s.PolicyKey()
	if errors.Is(err, uki.ErrNoSection) {
		return func(uki.Value) string { return "no: the image has no .pcrpkey" }, nil
	}
	if err != nil {
		return nil, err
	}
	r.Key = hex.EncodeToString(pcrsig.Fingerprint(key))
	all, err := s.Signatures()
	if errors.Is(err, uki.ErrNoSection) {
		return func(uki.Value) string { return "no: the image has no .pcrsig" }, nil
	}
	if err != nil {
		return nil, err
	}
	return func(v uki.Value) string {
		one := uki.Prediction{Values: []uki.Value{v}}
		switch err := one.Verify(all, key); {
		case err == nil:
			return "yes"
		case errors.Is(err, pcrsig.ErrNoBank), errors.Is(err, pcrsig.ErrOtherPolicy):
			return "no"
		default:
			return "no: " + err.Error()
		}
	}, nil
}

func (r prediction) write(out io.Writer, stub uki.Stub) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "SECTION\tBYTES\t%s", stub)
	versions := generations()
	for i := range versions {
		fmt.Fprintf(w, "\t%s", span(versions[i:]))
	}
	fmt.Fprintln(w)
	for _, s := range r.Sections {
		fmt.Fprintf(w, "%s\t%d\t%s", s.Name, s.Size, measured(stub, s.Name))
		for _, v := range versions {
			fmt.Fprintf(w, "\t%s", measured(v, s.Name))
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PHASES\tSIGNED\tPCR 11")
	for _, v := range r.Values {
		phases := v.Phases
		if phases == "" {
			phases = "(none)"
		}
		fmt.Fprintf(w, "%s\t%s\t%d:%s=%s\n", phases, v.Signed, uki.PCR, v.Bank, v.Value)
	}
	return w.Flush()
}

// span names the versions from the first to the one before the second.
func span(versions []uki.Stub) string {
	from := int(versions[0])
	switch {
	case len(versions) == 1:
		return fmt.Sprintf("%d-", from)
	case int(versions[1]) == from+1:
		return fmt.Sprint(from)
	}
	return fmt.Sprintf("%d-%d", from, int(versions[1])-1)
}

func measured(s uki.Stub, name string) string {
	if s.Measures(name) {
		return "measured"
	}
	return "-"
}

func tpmSignCommand() *cobra.Command {
	var i kernelImage
	var keyFile, to string
	cmd := &cobra.Command{
		Use:   "sign UKI --key FILE -o FILE",
		Short: "Sign what a unified kernel image will make of PCR 11",
		Long: `Writes the JSON that belongs in the section .pcrsig, as systemd-measure sign does:
a signed policy for each boot phase and bank. It needs no TPM. The image must have
its .pcrpkey already, which is measured; .pcrsig is not, and is put in afterwards.
A key that is sealed to the signature can be unsealed in the phases that are signed
and in no other: sign those in which disks are opened.`,
		Args: args("UKI"),
	}
	i.flags(cmd)
	cmd.Flags().StringVar(&keyFile, "key", "", "`FILE` with the RSA key that signs, PEM, not encrypted")
	cmd.Flags().StringVarP(&to, "output", "o", "-", "`FILE` for the signatures; - is stdout")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if keyFile == "" {
			return usageError("--key says which key signs")
		}
		key, err := uki.ReadKey(keyFile)
		if err != nil {
			return err
		}
		for _, w := range key.Warnings {
			fmt.Fprintln(cmd.ErrOrStderr(), "note:", w)
		}
		return i.with(a[0], func(s uki.Sections, p *uki.Prediction) error {
			text, err := signPrediction(key, s, p)
			if err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			if err := writeFile(cmd, to, text); err != nil || to == "-" {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "signed %d values of PCR 11 with %s\n", len(p.Values), strings.TrimPrefix(key.String(), "RSA "))
			return nil
		})
	}
	return cmd
}

// signPrediction gives the text of .pcrsig, by the key whose public half the image
// has.
func signPrediction(key *uki.Key, s uki.Sections, p *uki.Prediction) ([]byte, error) {
	if err := s.CheckKey(key.Public()); err != nil {
		return nil, err
	}
	signed, err := key.Sign(p)
	if err != nil {
		return nil, err
	}
	return signed.Encode()
}
