package main

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/role"
	"github.com/cryptctl/cryptctl/secret"
)

// maxPEM bounds a file of certificates, in bytes.
const maxPEM = 1 << 20

// certInfo is what is shown of a certificate.
type certInfo struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"` // hex
	Authority bool      `json:"authority"`
	Uses      []string  `json:"uses"` // "server", "client"
	Role      string    `json:"role"` // the strongest one, "none" for none
	Names     []string  `json:"names"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Expired   bool      `json:"expired"`
}

func pkiShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "Say whom certificates name, what for and until when",
		Args:  args("FILE"),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		all, err := readCertificates(given[0], time.Now())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), all)
		}
		for _, c := range all {
			c.print(cmd.OutOrStdout())
		}
		return nil
	}
	return cmd
}

// readCertificates reads all certificates of a PEM file. Keys in it are passed
// over.
func readCertificates(path string, now time.Time) (all []certInfo, err error) {
	file, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	defer file.Wipe()
	text := file.Bytes()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			clear(block.Bytes)
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", path, len(all)+1, err)
		}
		all = append(all, infoOf(c, now))
	}
	if len(all) < bytes.Count(text, []byte("-----BEGIN CERTIFICATE-----")) {
		return nil, fmt.Errorf("%s: a certificate is cut off or damaged", path)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", path)
	}
	return all, nil
}

// readPEM reads a file of certificates, in which a key may be too.
func readPEM(path string) (*secret.Bytes, error) {
	text, err := readFile(path, maxPEM)
	if errors.Is(err, secret.ErrTooLong) {
		return nil, fmt.Errorf("%s: more than %d bytes", path, maxPEM)
	}
	return text, err
}

func infoOf(c *x509.Certificate, now time.Time) certInfo {
	i := certInfo{
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: hex.EncodeToString(c.SerialNumber.Bytes()),
		Authority: c.IsCA, Uses: []string{}, Role: role.Of(c.Subject.Organization).String(), Names: append([]string{}, c.DNSNames...),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), Expired: now.After(c.NotAfter),
	}
	if slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		i.Uses = append(i.Uses, "server")
	}
	if slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		i.Uses = append(i.Uses, "client")
	}
	for _, ip := range c.IPAddresses {
		i.Names = append(i.Names, ip.String())
	}
	for _, u := range c.URIs {
		i.Names = append(i.Names, u.String())
	}
	return i
}

func (i certInfo) print(w io.Writer) {
	uses := strings.Join(i.Uses, ", ")
	if i.Authority {
		uses = "authority"
	}
	until := ""
	if i.Expired {
		until = " (expired)"
	}
	fmt.Fprintf(w, "%q\n  issuer  %q\n  serial  %s\n  for     %s\n  role    %s\n", i.Subject, i.Issuer, i.Serial, uses, i.Role)
	for _, name := range i.Names {
		fmt.Fprintf(w, "  name    %q\n", name)
	}
	fmt.Fprintf(w, "  valid   %s to %s%s\n", i.NotBefore.Format(time.RFC3339), i.NotAfter.Format(time.RFC3339), until)
}
