package provide

import (
	"cmp"
	"slices"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
)

// served gives a key that a key server seals its provider.
func (m Machine) served(c *config.KMS, key *keys.Key) {
	key.Tokens, key.Random, key.Remote = kms.Tokens(), true, true
	opts := kms.Options{Endpoints: append([]string{c.Endpoint}, c.Endpoints...)}
	if slices.ContainsFunc(opts.Endpoints, secure) { // else there is no TLS that the machine's own could be for
		opts.Authorities, opts.Certificate, opts.Key = m.KMS.Authorities, m.KMS.Certificate, m.KMS.Key
		opts.TrustedRoots = m.TrustedRoots
		opts.ServerName, opts.TLS12 = m.KMS.ServerName, m.KMS.TLS12
	}
	opts.NodeUUID, opts.CallTimeout, opts.Budget = m.UUID, m.KMS.CallTimeout, m.KMS.Budget
	opts.ServerName = cmp.Or(c.ServerName, opts.ServerName)
	opts.TLS12 = opts.TLS12 || c.TLS12
	if c.Authorities != nil {
		opts.Authorities, opts.TrustedRoots = c.Authorities, nil
	}
	if c.Certificate != nil {
		opts.Certificate, opts.Key = c.Certificate, c.Key
	}
	if opts.Budget != 0 {
		key.Timeout = opts.Budget
	}
	p, err := kms.New(opts)
	if err != nil {
		key.Provider = Lacking(err.Error())
		return
	}
	key.Provider = p
}

// secure reports whether an endpoint has TLS. One that cannot be read has what kms
// says of it.
func secure(endpoint string) bool {
	e, err := kms.ParseEndpoint(endpoint)
	return err == nil && !e.Plaintext()
}
