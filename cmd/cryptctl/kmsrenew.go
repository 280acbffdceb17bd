package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/internal/durable"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/role"
)

// kmsRenewal says which certificate is renewed, and who signs.
type kmsRenewal struct {
	dir, certificate, key, ca, caKey string
	ttl                              time.Duration
}

func kmsRenewCommand() *cobra.Command {
	var r kmsRenewal
	cmd := &cobra.Command{
		Use:   "renew server|admin",
		Short: "Issue the certificate of a key server, or of an operator, anew",
		Long: `Makes a new key and a certificate with the names, uses and roles of the one that is
there, and replaces both files, each as a whole and with its owner. A server that runs
takes them at its next connection, and meanwhile uses the former; nobody has to start
it anew. The former certificate may have ended; it is not revoked by this.

The authority's key is needed (ca.key): bring it for this moment, or issue where it is
kept, with --certificate and --key, and copy both files. If this is killed between the
two files, they do not belong together: do it again before the server is started.`,
		Args: args("server or admin"),
	}
	f := cmd.Flags()
	f.StringVar(&r.dir, "dir", kmsDir, "`DIRECTORY` that kms init made; it says what the other flags leave open")
	f.StringVar(&r.certificate, "certificate", "", "`FILE` with the certificate (default that of kms.yaml, or admin.crt in the directory)")
	f.StringVar(&r.key, "key", "", "`FILE` with its private key (default that of kms.yaml, or admin.key in the directory)")
	f.StringVar(&r.ca, "ca", "", "certificate `FILE` of the authority (default ca.crt in the directory)")
	f.StringVar(&r.caKey, "ca-key", "", "key `FILE` of the authority (default ca.key in the directory)")
	f.DurationVar(&r.ttl, "ttl", kmsCertificateTTL, "how long it lives")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if r.ttl <= 0 {
			return usageError("--ttl: a life of %s; give one such as 2160h", r.ttl)
		}
		if (r.certificate == "") != (r.key == "") {
			return usageError("--certificate and --key belong together; give both")
		}
		if err := r.fill(given[0]); err != nil {
			return err
		}
		return r.run(cmd.OutOrStdout(), given[0] == "server")
	}
	return cmd
}

// fill finds the files that were not named.
func (r *kmsRenewal) fill(what string) error {
	in := func(path *string, name string) {
		if *path == "" {
			*path = filepath.Join(r.dir, name)
		}
	}
	in(&r.ca, "ca.crt")
	in(&r.caKey, "ca.key")
	switch {
	case what != "server" && what != "admin":
		return usageError("%q is neither server nor admin; see cryptctl kms renew --help", what)
	case r.certificate != "":
	case what == "admin":
		in(&r.certificate, "admin.crt")
		in(&r.key, "admin.key")
	default:
		c, err := readKMSConfig(filepath.Join(r.dir, kmsConfigName))
		if err != nil {
			return fmt.Errorf("%w; or name the files with --certificate and --key", err)
		}
		r.certificate, r.key = c.TLS.Certificate, c.TLS.Key
	}
	return nil
}

func (r *kmsRenewal) run(out io.Writer, server bool) error {
	former, err := firstCertificate(r.certificate)
	if err != nil {
		return fmt.Errorf("the certificate to renew: %w; name it with --certificate and --key", err)
	}
	request, err := again(former, r.ttl)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w; issue one with cryptctl pki cert", r.certificate, err)
	case server && !request.Server:
		return fmt.Errorf("%s is no server's certificate; name that with --certificate and --key", r.certificate)
	case !server && len(request.Roles) == 0:
		return fmt.Errorf("%s is no operator's certificate; name that with --certificate and --key", r.certificate)
	}
	authority, err := pki.ReadAuthority(r.ca, r.caKey)
	if err != nil {
		return fmt.Errorf("the authority: %w; give its files with --ca and --ca-key", err)
	}
	pair, err := authority.Issue(request)
	if err != nil {
		return err
	}
	defer pair.Wipe()
	if err := replacePair(pair, r.certificate, r.key); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %q, until %s\n", r.certificate, request.Name, time.Now().Add(r.ttl).UTC().Format(time.RFC3339))
	names := slices.Clone(request.DNS)
	for _, ip := range request.IPs {
		names = append(names, ip.String())
	}
	for _, each := range request.Roles {
		names = append(names, "role "+each.String())
	}
	_, err = fmt.Fprintf(out, "kept: %s\n", oneLine(strings.Join(names, ", ")))
	return err
}

// firstCertificate reads the certificate of a file, which its issuers may follow.
func firstCertificate(path string) (*x509.Certificate, error) {
	text, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	defer text.Wipe()
	for block, rest := pem.Decode(text.Bytes()); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			return c, nil
		}
	}
	return nil, fmt.Errorf("%s holds no certificate in PEM form", path)
}

// again is the request for a certificate that says what one says. What a request
// cannot say is an error: to lose a name silently would be a surprise.
func again(c *x509.Certificate, ttl time.Duration) (pki.Request, error) {
	r := pki.Request{
		Name: c.Subject.CommonName, TTL: ttl, DNS: c.DNSNames,
		Server: slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth),
		Client: slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth),
	}
	if c.IsCA || len(c.URIs)+len(c.EmailAddresses) > 0 {
		return r, errors.New("it is an authority's, or has names that would be lost")
	}
	for _, ip := range c.IPAddresses {
		a, ok := netip.AddrFromSlice(ip)
		if !ok {
			return r, errors.New("it has an address that cannot be read")
		}
		r.IPs = append(r.IPs, a.Unmap())
	}
	for _, organization := range c.Subject.Organization {
		each := role.Of([]string{organization})
		if each == role.None {
			return r, fmt.Errorf("its organization %q would be lost", organization)
		}
		r.Roles = append(r.Roles, each)
	}
	return r, nil
}

// replacePair puts a certificate and its key in the place of others. All of both is on
// the disk before the first file is replaced; if the second cannot be, the first
// is put back.
func replacePair(p pki.Pair, certificate, key string) error {
	newKey, err := stage(key, p.Key.Bytes(), 0o600)
	if err != nil {
		return err
	}
	defer newKey.drop()
	newCert, err := stage(certificate, p.Cert, 0o644)
	if err != nil {
		return err
	}
	defer newCert.drop()
	return errors.Join(swap(newKey, newCert), durable.SyncDir(filepath.Dir(newKey.target)), durable.SyncDir(filepath.Dir(newCert.target)))
}

// swap replaces two files, or neither.
func swap(first, second staged) error {
	former := first.temporary + ".former"
	err := os.Link(first.target, former)
	if err == nil {
		defer os.Remove(former)
	} else if !errors.Is(err, fs.ErrNotExist) { // a key that was lost is replaced too
		return fmt.Errorf("keep %s until %s is replaced: %w", first.target, second.target, err)
	}
	if err := first.put(); err != nil {
		return err
	}
	if err := second.put(); err != nil {
		return errors.Join(err, os.Rename(former, first.target))
	}
	return nil
}

// stage writes and syncs content beside the file that a path leads to, whose owner
// it gets, and whose mode unless the file is new.
func stage(path string, content []byte, mode fs.FileMode) (staged, error) {
	target, old, err := replaced(path)
	if err != nil {
		return staged{}, err
	}
	if old != nil {
		mode = 0o600 | old.Mode().Perm()&(mode|0o040) // a group may have been given the key
	}
	return stageFile(path, target, content, mode, old)
}

// soon is how long before its end an operator is told of a certificate's, if it
// lives long: of a short life it is the last quarter.
const soon = 14 * 24 * time.Hour

// endsSoon says that a certificate ends, "" if there is time.
func endsSoon(c *x509.Certificate, now time.Time) string {
	left := c.NotAfter.Sub(now)
	if left > min(soon, c.NotAfter.Sub(c.NotBefore)/4) {
		return ""
	}
	return fmt.Sprintf("ends on %s, in %s", c.NotAfter.UTC().Format(time.DateTime), left.Round(time.Minute))
}

// noteEnd tells an operator that the certificate that is shown ends soon.
func (k *kmsTarget) noteEnd(out io.Writer) {
	path := k.certificate
	if path == "" {
		path = filepath.Join(k.dir, "admin.crt")
	}
	c, err := firstCertificate(path)
	if err != nil {
		return // whoever uses it says so
	}
	if ends := endsSoon(c, time.Now()); ends != "" {
		fmt.Fprintf(out, "note: %s %s; cryptctl kms renew admin\n", path, ends)
	}
}
