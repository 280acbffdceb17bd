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
	var err error
	if c.RootCAs, err = o.roots(); err != nil {
		return nil, err
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

// roots are who may issue the servers' certificates; nil is the system's.
func (o Options) roots() (*x509.CertPool, error) {
	if len(o.Authorities) == 0 && len(o.TrustedRoots) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if len(o.Authorities) == 0 {
		if system, err := x509.SystemCertPool(); err == nil { // a system without is no mistake
			pool = system
		}
	}
	for _, bundle := range [][]byte{o.Authorities, o.TrustedRoots} {
		if len(bundle) > 0 && !pool.AppendCertsFromPEM(bundle) {
			return nil, errors.New("the authorities of the key server hold no certificate in PEM form")
		}
	}
	return pool, nil
}
