package server

import (
	"crypto/tls"
	"errors"
)

// errNoAuthority: without a list of its own crypto/tls would take any client
// certificate that a public authority issued, whatever roles it claims.
var errNoAuthority = errors.New("key server: there is no authority that client certificates are verified with")

// guard returns a configuration, and what it chooses for a client, in which
// certificates of clients are verified with an authority of ours. With required
// no one gets in without one.
func guard(c *tls.Config, required bool) *tls.Config {
	out := c.Clone()
	if required {
		out.ClientAuth = tls.RequireAndVerifyClientCert
	}
	choose := c.GetConfigForClient
	out.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		chosen := c
		if choose != nil {
			switch other, err := choose(h); {
			case err != nil:
				return nil, err
			case other != nil:
				chosen = other
			}
		}
		chosen = chosen.Clone()
		if required {
			chosen.ClientAuth = tls.RequireAndVerifyClientCert
		}
		if chosen.ClientAuth >= tls.VerifyClientCertIfGiven && chosen.ClientCAs == nil {
			return nil, errNoAuthority
		}
		return chosen, nil
	}
	return out
}
