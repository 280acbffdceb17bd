package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/logging"
)

// kmsConfigName is the configuration's name in the folder that kms init makes.
const kmsConfigName = "kms.yaml"

// kmsConfigText is what kms init writes: all that can be set, and the enrolment.
const kmsConfigText = `# The key server's configuration. Paths are relative to this file; what is left
# out has the value that stands here. Certificates are read again when their files
# change; all else needs a restart.

nodes:
  # Where nodes ask: https://HOST:4050 in their configuration, with ca.crt as a
  # trusted authority.
  listen: ":4050"
  # Certificates of nodes, whose common name or DNS name is the node's UUID:
  # optional, or required. One that is shown counts in either case: it speaks for
  # its own node only.
  certificates: optional
  # Nodes that need one although it is optional for others.
  certificates_for: []

operators:
  # Where operators ask, with a certificate of a role (os:admin, os:operator,
  # os:reader), such as admin.crt. Empty: nowhere.
  listen: "127.0.0.1:4051"
  # Serve them where nodes ask, too.
  on_nodes_listener: false

metrics:
  # /metrics, /healthz and /readyz over HTTP, without access control. Empty: nowhere.
  listen: "127.0.0.1:4052"

tls:
  certificate: server.crt
  key: server.key
  # Who issues the certificates of nodes and operators. The authority's key,
  # ca.key, is not used by the server: keep it somewhere else.
  authorities: ca.crt

# What wraps the nodes' keys. Whoever has the keyset, what opens it, and a copy of
# the store can open everything: keep what opens it on another medium than backups.
kek:
  keyset: kek.json
  # What opens the keyset is one of:
  #   key_file: FILE         at least 32 random bytes, such as a systemd credential
  #   passphrase_file: FILE  a passphrase; every byte counts, a line end too
  #   passphrase: ask        the same, asked for on the terminal at each start
  %[2]s
# Instead, a key of Vault or OpenBao, which never leaves it. The server starts
# without it and answers nodes once it is there.
# kek:
#   transit:
#     address: https://vault.example:8200
#     key: nodes                 # its name
#     token_file: vault.token    # read for each request, so an agent may renew it
#     authorities: vault-ca.crt  # default: the system's
#     mount: transit             # of the engine
#     namespace: ""
#     derived: false             # made with derived=true
#     timeout: 5s                # of one request

# Where the nodes are kept: one file, for one server.
store: nodes.db
# Instead, an etcd cluster, for any number of servers. Each has an audit log of its
# own; what wraps the nodes' keys must be the same for all: a server whose keyset
# is behind seals nothing, and says so. The server starts without etcd and answers
# nodes once it is there.
# store:
#   etcd:
#     endpoints: ["https://etcd-1.example:2379", "https://etcd-2.example:2379"]
#     certificate: etcd.crt      # that etcd knows this server by
#     key: etcd.key
#     authorities: etcd-ca.crt   # default: the system's
#     prefix: /cryptctl/kms/
#     timeout: 5s                # of one request

audit: audit

policy: # until an operator sets another one
  # allow-list: an operator approves each node. open: whoever seals first is in.
  enrol: %[1]s
  # Source networks that may ask, such as 192.0.2.0/24. None: all.
  networks: []
  # Unseals of a node in an hour, and at once after a quiet time. 0: no limit.
  per_hour: 0
  burst: 0

logging:
  # Where the log goes besides the terminal, as in a machine configuration. It is in
  # plaintext; it holds no secret, and names nodes and addresses.
  destinations: []
  # - endpoint: "tcp://logs.example:5044"  # or udp://
  #   format: json_lines
  #   extraTags: {cluster: one}

# The key file of a Sidero reference server whose nodes move here. Empty: none.
import_reference_key: ""

# How long calls that are under way may take when the server is stopped.
drain: 20s
`

// kmsConfig is the file.
type kmsConfig struct {
	Nodes struct {
		Listen          string   `yaml:"listen"`
		Certificates    string   `yaml:"certificates"`
		CertificatesFor []string `yaml:"certificates_for"`
	} `yaml:"nodes"`
	Operators struct {
		Listen          string `yaml:"listen"`
		OnNodesListener bool   `yaml:"on_nodes_listener"`
	} `yaml:"operators"`
	Metrics struct {
		Listen string `yaml:"listen"`
	} `yaml:"metrics"`
	TLS struct {
		Certificate string `yaml:"certificate"`
		Key         string `yaml:"key"`
		Authorities string `yaml:"authorities"`
	} `yaml:"tls"`
	KEK    kmsKEK   `yaml:"kek"`
	Store  kmsStore `yaml:"store"`
	Audit  string   `yaml:"audit"`
	Policy struct {
		Enrol    policy.Enrolment `yaml:"enrol"`
		Networks []netip.Prefix   `yaml:"networks"`
		PerHour  int              `yaml:"per_hour"`
		Burst    int              `yaml:"burst"`
	} `yaml:"policy"`
	Logging            kmsLogging    `yaml:"logging"`
	ImportReferenceKey string        `yaml:"import_reference_key"`
	Drain              time.Duration `yaml:"drain"`

	certificatesFor []blob.Node
	logs            []logging.Destination
}

// parseKMSConfig reads a configuration strictly, on top of what kms init writes.
func parseKMSConfig(text []byte) (*kmsConfig, error) {
	c := &kmsConfig{}
	if err := decodeKMSConfig(fmt.Appendf(nil, kmsConfigText, policy.AllowList, kmsKeyFile), c); err != nil {
		return nil, err
	}
	usual := c.KEK
	c.KEK = kmsKEK{} // the parts of one kind are not those of another
	if err := decodeKMSConfig(text, c); err != nil {
		return nil, err
	}
	c.KEK.fill(usual)
	return c, c.check()
}

func decodeKMSConfig(text []byte, c *kmsConfig) error {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := d.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		return errors.New("more than one document; a key server has one")
	}
	return nil
}

func (c *kmsConfig) check() error {
	if v := c.Nodes.Certificates; v != "optional" && v != "required" {
		return fmt.Errorf("nodes.certificates: %q is neither optional nor required", v)
	}
	for i, text := range c.Nodes.CertificatesFor {
		node, err := blob.ParseNode(text)
		if err != nil {
			return fmt.Errorf("nodes.certificates_for[%d]: %w", i, err)
		}
		c.certificatesFor = append(c.certificatesFor, node)
	}
	for _, is := range []struct{ field, value string }{
		{"nodes.listen", c.Nodes.Listen},
		{"tls.certificate", c.TLS.Certificate},
		{"tls.key", c.TLS.Key},
		{"tls.authorities", c.TLS.Authorities},
		{"audit", c.Audit},
	} {
		if is.value == "" {
			return emptyField(is.field)
		}
	}
	if err := c.KEK.check(); err != nil {
		return err
	}
	if err := c.Store.check(); err != nil {
		return err
	}
	var err error
	if c.logs, err = c.Logging.destinations(); err != nil {
		return err
	}
	if c.Drain < 0 {
		return fmt.Errorf("drain: %s; a duration such as 20s", c.Drain)
	}
	if err := c.rules().Check(); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return nil
}

func emptyField(name string) error {
	return fmt.Errorf("%s: is empty; leave it out to get the default", name)
}

func (c *kmsConfig) rules() policy.Rules {
	return policy.Rules{
		Enrol: c.Policy.Enrol, Networks: c.Policy.Networks,
		Limit: policy.Limit{PerHour: c.Policy.PerHour, Burst: c.Policy.Burst},
	}
}

// readKMSConfig reads a file and makes its paths those of this process.
func readKMSConfig(path string) (*kmsConfig, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w; cryptctl kms init makes a folder with all that a key server needs", err)
	}
	if err != nil {
		return nil, err
	}
	c, err := parseKMSConfig(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	paths := []*string{&c.TLS.Certificate, &c.TLS.Key, &c.TLS.Authorities, &c.Audit, &c.ImportReferenceKey}
	for _, p := range slices.Concat(paths, c.KEK.paths(), c.Store.paths()) {
		if p != nil && *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	return c, nil
}
