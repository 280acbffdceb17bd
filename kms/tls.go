package kms

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// tlsConfig makes what connections with TLS are held to.
func (o Options) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: o.ServerName}
	if o.TLS12 {
		c.MinVersion = tls.VersionTLS12
	}
	if len(o.Authorities) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(o.Authorities) {
			return nil, errors.New("the authorities of the key server hold no certificate in PEM form")
		}
	}
	if len(o.Certificate) > 0 || o.Key.Len() > 0 {
		pair, err := tls.X509KeyPair(o.Certificate, o.Key.Bytes())
		if err != nil { // says what it lacks, and shows nothing of it
			return nil, fmt.Errorf("the client certificate for the key server and its key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// needsTLS reports whether there are options that have no meaning in plaintext.
func (o Options) needsTLS() bool {
	return len(o.Authorities) > 0 || len(o.Certificate) > 0 || o.Key.Len() > 0 || o.ServerName != "" || o.TLS12
}
