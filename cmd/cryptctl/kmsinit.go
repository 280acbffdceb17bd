package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/internal/durable"
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

// minPassphrase is how many bytes the passphrase of a new keyset has at least: who has
// the file can try as fast as they can pay for.
const minPassphrase = 12

func kmsInitCommand() *cobra.Command {
	var hosts []string
	var enrol, passphrase string
	cmd := &cobra.Command{
		Use:   "init [DIRECTORY]",
		Short: "Make all that a key server needs, in a new directory",
		Long: `Makes a directory (default ` + kmsDir + `) with everything that "cryptctl kms serve" needs:

  kms.yaml                the configuration, with comments
  ca.crt, ca.key          an authority; nodes trust ca.crt, ca.key belongs elsewhere
  server.crt, server.key  the server's certificate, for a year
  admin.crt, admin.key    a certificate for an operator who may do everything
  kek.json, kek.key       what wraps the nodes' keys, and the key file that opens it

With --passphrase-file the keyset kek.json is opened by a passphrase, and there is
no kek.key. A key in Vault or OpenBao, and nodes in etcd, are set in kms.yaml, whose
comments say how. Every byte of a passphrase file counts, a line end too; twelve are
the least.

A directory that is there and not empty is left alone. The configuration comes
last: one without kms.yaml is not complete.`,
		Args: maybe("DIRECTORY"),
	}
	named := dirFlag(cmd)
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "`NAMES` and addresses that nodes call the server by, besides localhost; default the host's name")
	cmd.Flags().StringVar(&enrol, "enrol", string(policy.AllowList), "`MODE` for nodes that are not known: allow-list has an operator approve each, open lets in whoever seals first")
	cmd.Flags().StringVar(&passphrase, "passphrase-file", "", "`FILE` with the passphrase that opens the keyset, in the place of kek.key; - asks for one on the terminal, then and at each start")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		dir, err := named(given)
		if err != nil {
			return err
		}
		if err := (policy.Rules{Enrol: policy.Enrolment(enrol)}).Check(); err != nil {
			return usageError("--%w", err)
		}
		server, err := serverNames(hosts)
		if err != nil {
			return err
		}
		opens, err := newKeysetSecret(cmd.Context(), passphrase)
		if err != nil {
			return err
		}
		defer opens.wipe()
		if err := kmsInit(withProgress(cmd.Context()), dir, newKMS{server, enrol, opens}); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), `%s is ready. Next:
  move %s off this machine: whoever has it can issue certificates
  cryptctl kms serve %s
`, dir, filepath.Join(dir, "ca.key"), dir)
		return nil
	}
	return cmd
}

// dirFlag adds --dir to a command that takes the directory as an argument, too, and
// returns what says which it is.
func dirFlag(cmd *cobra.Command) func(given []string) (string, error) {
	dir := cmd.Flags().String("dir", kmsDir, "`DIRECTORY` of the key server, as the argument says it")
	return func(given []string) (string, error) {
		switch {
		case len(given) == 0:
			return *dir, nil
		case cmd.Flags().Changed("dir"):
			return "", usageError("%q and --dir both name a directory; give one of them", given[0])
		}
		return given[0], nil
	}
}

// newKMS is what a new directory depends on.
type newKMS struct {
	server pki.Request
	enrol  string
	opens  newSecret
}

// newSecret is what opens a new keyset, and how kms.yaml says so.
type newSecret struct {
	keysetSecret
	setting string
}

// newKeysetSecret makes a key file's content, or gets a passphrase.
func newKeysetSecret(ctx context.Context, passphrase string) (s newSecret, err error) {
	switch {
	case passphrase == "":
		s.KeyFile, s.setting = secret.Random(32), kmsKeyFile
	case isAsked(passphrase):
		s.Passphrase, err = askNew(ctx, "there is no terminal to ask for a passphrase on")
		s.setting = "passphrase: ask"
	case passphrase == "-":
		return s, usageError("--passphrase-file -: there is no terminal to ask on; give a file, which is read at each start")
	default:
		var path string
		if path, err = filepath.Abs(passphrase); err != nil {
			return s, err
		}
		s.Passphrase, err = readKey(ctx, path)
		s.setting = fmt.Sprintf("passphrase_file: %q", path)
	}
	if err != nil || s.Passphrase == nil {
		return s, err
	}
	if n := s.Passphrase.Len(); n < minPassphrase {
		s.Passphrase.Wipe()
		return s, usageError("the passphrase has %d bytes, and with the keyset it opens the keys of all nodes; give it at least %d, such as six random words", n, minPassphrase)
	}
	return s, nil
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
	err := addHosts(&r, hosts)
	return r, err
}

// addHosts adds what --host gave to a request.
func addHosts(r *pki.Request, hosts []string) error {
	name := regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
	for _, h := range hosts {
		if ip, err := netip.ParseAddr(h); err == nil {
			r.IPs = append(r.IPs, ip)
		} else if !name.MatchString(h) {
			return usageError("--host: %q is neither a name nor an address", h)
		} else if !slices.Contains(r.DNS, h) {
			r.DNS = append(r.DNS, h)
		}
	}
	return nil
}

// kmsInit fills a directory that is new or empty: a folder in it first, whose files
// are then moved up, the configuration last. That also works for a mount point,
// and keeps owner and mode of what was there.
func kmsInit(ctx context.Context, dir string, n newKMS) (err error) {
	if err := os.Mkdir(dir, 0o700); err == nil {
		defer func() {
			if err != nil {
				os.Remove(dir) // if it is empty again
			}
		}()
	} else if !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := mustBeEmpty(dir, ""); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, ".kms-init-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := mustBeEmpty(dir, filepath.Base(tmp)); err != nil {
		return err // someone else does the same at this moment
	}
	if err := fillKMS(ctx, tmp, n); err != nil {
		return err
	}
	if err := moveUp(tmp, dir, kmsConfigName); err != nil {
		return err
	}
	return errors.Join(durable.SyncDir(dir), durable.SyncDir(filepath.Dir(filepath.Clean(dir))))
}

// mustBeEmpty refuses a directory that has anything but one file, and but what a file
// system has of its own.
func mustBeEmpty(dir, but string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != but && name != "lost+found" {
			return notEmpty(dir)
		}
	}
	return nil
}

// moveUp moves the files of a folder to another directory, one of them last.
func moveUp(from, to, last string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	move := func(name string) error { return os.Rename(filepath.Join(from, name), filepath.Join(to, name)) }
	for _, e := range entries {
		if e.Name() == last {
			continue
		}
		if err := move(e.Name()); err != nil {
			return err
		}
	}
	if err := durable.SyncDir(to); err != nil {
		return err
	}
	return move(last)
}

func notEmpty(dir string) error {
	return fmt.Errorf("%s is not empty, and nothing is replaced; move it away, or choose another directory", dir)
}

// fillKMS writes all files.
func fillKMS(ctx context.Context, dir string, n newKMS) error {
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
	for name, request := range map[string]pki.Request{"server": n.server, "admin": admin} {
		pair, err := authority.Issue(request)
		if err == nil {
			err = pair.Write(in(name+".crt"), in(name+".key"))
			pair.Wipe()
		}
		if err != nil {
			return err
		}
	}
	keyset, err := kek.Create(ctx, in("kek.json"), n.opens.Secret)
	if err != nil {
		return err
	}
	keyset.Close()
	if key := n.opens.KeyFile; key != nil {
		if err := writeSynced(in("kek.key"), key.Bytes()); err != nil {
			return err
		}
	}
	return errors.Join(
		writeSynced(in(kmsConfigName), fmt.Appendf(nil, kmsConfigText, n.enrol, n.opens.setting)),
		durable.SyncDir(dir))
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}
