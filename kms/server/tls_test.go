package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
)

// TestNoAuthority: without an authority of ours nobody's certificate counts, for
// crypto/tls would ask those of the system.
func TestNoAuthority(t *testing.T) {
	chooses := func(c *tls.Config) *tls.Config {
		return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c, nil }}
	}
	optional, pool := &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven}, x509.NewCertPool()
	for name, c := range map[string]struct {
		config   *tls.Config
		required bool
		want     error
	}{
		"operators":            {&tls.Config{}, true, errNoAuthority},
		"operators, chosen":    {chooses(&tls.Config{}), true, errNoAuthority},
		"operators, with one":  {chooses(&tls.Config{ClientCAs: pool}), true, nil},
		"nodes":                {optional, false, errNoAuthority},
		"nodes, chosen":        {chooses(optional), false, errNoAuthority},
		"nodes, none asked":    {&tls.Config{}, false, nil},
		"nodes, with one":      {&tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}, false, nil},
		"chooses none, has it": {chooses(nil), true, errNoAuthority},
	} {
		got, err := guard(c.config, c.required).GetConfigForClient(nil)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && c.required && got.ClientAuth != tls.RequireAndVerifyClientCert {
			t.Errorf("%s: certificates are not required: %v", name, got.ClientAuth)
		}
	}
}
