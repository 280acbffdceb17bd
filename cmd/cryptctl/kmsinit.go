package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/role"
	"github.com/cryptctl/cryptctl/secret"
)

// kmsDir is where a key server is, unless it is said.
const kmsDir = "kms"

// kmsCertificateTTL is the life of the certificates that kms init issues.
const kmsCertificateTTL = 365 * 24 * time.Hour

func kmsInitCommand() *cobra.Command {
	var hosts []string
	var enrol string
	cmd := &cobra.Command{
		Use:   "init [DIRECTORY]",
		Short: "Make all that a key server needs, in a new directory",
		Long: `Makes a directory (default ` + kmsDir + `) with everything that "cryptctl kms serve" needs:

  kms.yaml                the configuration, with comments
  ca.crt, ca.key          an authority; nodes trust ca.crt, ca.key belongs elsewhere
  server.crt, server.key  the server's certificate, for a year
  admin.crt, admin.key    a certificate for an operator who may do everything
  kek.json, kek.key       what wraps the nodes' keys, and the key file that opens it

The directory comes into being as a whole. One that is there and not empty is
left alone.`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) > 1 {
				return args("")(cmd, given)
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "`NAMES` and addresses that nodes call the server by, besides localhost; default the host's name")
	cmd.Flags().StringVar(&enrol, "enrol", string(policy.AllowList), "what becomes of nodes that are not known: `allow-list` has an operator approve each, open lets in whoever seals first")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		dir := kmsDir
		if len(given) > 0 {
			dir = given[0]
		}
		if err := (policy.Rules{Enrol: policy.Enrolment(enrol)}).Check(); err != nil {
			return usageError("--%w", err)
		}
		server, err := serverNames(hosts)
		if err != nil {
			return err
		}
		if err := kmsInit(cmd.Context(), dir, server, enrol); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), `%s is ready. Next:
  keep %s somewhere else: who has it can issue certificates
  cryptctl kms serve %s
`, dir, filepath.Join(dir, "ca.key"), dir)
		return nil
	}
	return cmd
}

// serverNames is the request for a certificate of a server with these names.
func serverNames(hosts []string) (pki.Request, error) {
	r := pki.Request{Name: "cryptctl kms", Server: true, TTL: kmsCertificateTTL, DNS: []string{"localhost"}}
	r.IPs = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	if len(hosts) == 0 {
		own, err := os.Hostname()
		if err != nil {
			return r, fmt.Errorf("the host's name: %w; give one with --host", err)
		}
		hosts = []string{own}
	}
	name := regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
	for _, h := range hosts {
		if ip, err := netip.ParseAddr(h); err == nil {
			r.IPs = append(r.IPs, ip)
		} else if !name.MatchString(h) {
			return r, usageError("--host: %q is neither a name nor an address", h)
		} else if h != "localhost" {
			r.DNS = append(r.DNS, h)
		}
	}
	return r, nil
}

// kmsInit makes the directory under another name, and gives it its own when all is
// there. A rename replaces an empty directory, and no other; that of package os
// does neither.
func kmsInit(ctx context.Context, dir string, server pki.Request, enrol string) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return notEmpty(dir)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(filepath.Clean(dir))
	tmp, err := os.MkdirTemp(parent, ".kms-init-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // there is nothing after the rename
	if err := fillKMS(ctx, tmp, server, enrol); err != nil {
		return err
	}
	if err := syscall.Rename(tmp, dir); errors.Is(err, os.ErrExist) {
		return notEmpty(dir)
	} else if err != nil {
		return err
	}
	return syncDir(parent)
}

func notEmpty(dir string) error {
	return fmt.Errorf("%s is not empty, and nothing is replaced; move it away, or choose another directory", dir)
}

// fillKMS writes all files.
func fillKMS(ctx context.Context, dir string, server pki.Request, enrol string) error {
	in := func(name string) string { return filepath.Join(dir, name) }
	authority, ca, err := pki.NewAuthority("cryptctl kms", 0)
	if err != nil {
		return err
	}
	defer ca.Wipe()
	if err := ca.Write(in("ca.crt"), in("ca.key")); err != nil {
		return err
	}
	admin := pki.Request{Name: "admin", Client: true, TTL: kmsCertificateTTL, Roles: []role.Role{role.Admin}}
	for name, request := range map[string]pki.Request{"server": server, "admin": admin} {
		pair, err := authority.Issue(request)
		if err == nil {
			err = pair.Write(in(name+".crt"), in(name+".key"))
			pair.Wipe()
		}
		if err != nil {
			return err
		}
	}
	key := secret.Random(32)
	defer key.Wipe()
	keyset, err := kek.Create(ctx, in("kek.json"), kek.Secret{KeyFile: key})
	if err != nil {
		return err
	}
	keyset.Close()
	return errors.Join(
		writeSynced(in("kek.key"), key.Bytes()),
		writeSynced(in(kmsConfigName), fmt.Appendf(nil, kmsConfigText, enrol)),
		syncDir(dir))
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
