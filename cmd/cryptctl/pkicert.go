package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/role"
)

// certFlags say what a certificate is for.
type certFlags struct {
	ca, caKey, name, node, out string
	roles, hosts               []string
	server, client             bool
	ttl                        time.Duration
}

func pkiCertCommand() *cobra.Command {
	var c certFlags
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Issue a certificate, with a new key",
		Long: `Issues a certificate for one of these, and makes an Ed25519 key for it:

  --host NAMES --server     a server, such as "cryptctl kms serve"
  --role ROLE --name NAME   an operator: admin, operator or reader, as os:admin and
                            so on in the organization of the subject
  --node UUID               a node that speaks with a key server
  --client --name NAME      another client, such as a key server towards etcd

There is no revocation: give certificates a short life, and issue new ones.`,
		Args: args(),
	}
	f := cmd.Flags()
	f.StringVar(&c.ca, "ca", "ca.crt", "certificate `FILE` of the authority")
	f.StringVar(&c.caKey, "ca-key", "", "key `FILE` of the authority; default that of --ca with .key in the place of .crt")
	f.StringVar(&c.name, "name", "", "common `NAME`; default the node's UUID, or the first of --host")
	f.StringSliceVar(&c.roles, "role", nil, "`ROLE` of a client: admin, operator, reader (repeatable)")
	f.StringVar(&c.node, "node", "", "`UUID` of the node that the certificate speaks for")
	f.StringSliceVar(&c.hosts, "host", nil, "`NAMES` and addresses that clients call the server by")
	f.BoolVar(&c.server, "server", false, "for the side that is called; understood with --host")
	f.BoolVar(&c.client, "client", false, "for the side that calls; understood with --role and --node")
	f.DurationVar(&c.ttl, "ttl", pki.DefaultTTL, "how long it lives")
	f.StringVar(&c.out, "out", "", "`PREFIX` of the new files PREFIX.crt and PREFIX.key, or a folder for them; default the name")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r, err := c.request()
		if err != nil {
			return err
		}
		cert, err := c.issue(r)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %q, until %s\n", cert, r.Name, time.Now().Add(r.TTL).UTC().Format(time.RFC3339))
		return nil
	}
	return cmd
}

// request turns the flags into a request, and refuses what does not go together.
func (c *certFlags) request() (pki.Request, error) {
	r := pki.Request{Name: c.name, TTL: c.ttl, Server: c.server || len(c.hosts) > 0, Client: c.client || len(c.roles) > 0 || c.node != ""}
	switch {
	case c.ttl <= 0:
		return r, usageError("--ttl: a life of %s; give one such as 24h", c.ttl)
	case !r.Server && !r.Client:
		return r, usageError("say what the certificate is for: --host, --role, --node or --client")
	case len(c.hosts) == 0 && c.server:
		return r, usageError("--server needs --host: the names or addresses that clients call it by")
	case len(c.roles) > 0 && r.Server:
		return r, usageError("--role is for clients, and --host or --server is for servers; issue two certificates")
	case len(c.roles) > 0 && c.node != "":
		return r, usageError("--role is for operators, and --node for nodes; a node's certificate lies on its disk and must not be able to do more")
	case c.node != "" && r.Server:
		return r, usageError("--node is for clients, and --host or --server is for servers; issue two certificates")
	}
	for _, name := range c.roles {
		each, err := role.Parse(name)
		if err != nil {
			return r, usageError("--role: %w", err)
		}
		if !slices.Contains(r.Roles, each) {
			r.Roles = append(r.Roles, each)
		}
	}
	err := c.names(&r)
	return r, err
}

// names fills in who the certificate names.
func (c *certFlags) names(r *pki.Request) error {
	if err := addHosts(r, c.hosts); err != nil {
		return err
	}
	if c.node != "" {
		node, err := blob.ParseNode(c.node)
		if err != nil {
			return usageError("--node: %w", err)
		}
		if r.Name != "" && r.Name != string(node) {
			r.DNS = append(r.DNS, string(node))
		} else {
			r.Name = string(node)
		}
	}
	if r.Name == "" && len(c.hosts) > 0 {
		r.Name = c.hosts[0]
	}
	if r.Name == "" {
		return usageError("--name is missing: who is it for?")
	}
	return nil
}

// issue signs and writes, and returns the certificate's file.
func (c *certFlags) issue(r pki.Request) (string, error) {
	out := c.out
	name := strings.TrimPrefix(r.Name, "*.")
	switch safe := name != "" && !strings.HasPrefix(name, ".") && !strings.ContainsAny(name, "/ \x00"); {
	case !safe && (out == "" || strings.HasSuffix(out, "/")):
		return "", usageError("--out is missing: %q is no name for files", r.Name)
	case out == "":
		out = name
	}
	caKey := c.caKey
	if caKey == "" {
		rest, ok := strings.CutSuffix(c.ca, ".crt")
		if !ok {
			return "", usageError("--ca-key is missing: %s does not end with .crt, so the name of its key is not known", c.ca)
		}
		caKey = rest + ".key"
	}
	authority, err := pki.ReadAuthority(c.ca, caKey)
	if err != nil {
		return "", fmt.Errorf("authority: %w", err)
	}
	pair, err := authority.Issue(r)
	if err != nil {
		return "", err
	}
	defer pair.Wipe()
	cert, key := pairFiles(out, name)
	return cert, pair.Write(cert, key)
}
