package server

import (
	"crypto/tls"
	"crypto/x509"
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

// trusts verifies a client's certificate again, with the authorities of now: a
// connection may be older than they are.
func (g gate) trusts(c caller) error {
	config := g.config
	if config.GetConfigForClient != nil {
		chosen, err := config.GetConfigForClient(&tls.ClientHelloInfo{})
		if err != nil {
			return err
		}
		if chosen != nil {
			config = chosen
		}
	}
	if config.ClientCAs == nil {
		return errNoAuthority
	}
	o := x509.VerifyOptions{Roots: config.ClientCAs, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, other := range c.shown[1:] {
		o.Intermediates.AddCert(other)
	}
	_, err := c.cert.Verify(o)
	return err
}
