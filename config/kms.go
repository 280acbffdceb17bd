package config

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/cryptctl/cryptctl/secret"
)

// maxServers bounds the key servers of one key: they are tried in one time budget.
const maxServers = 16

// beyondEndpoint are the fields that Talos does not have.
func beyondEndpoint() []string {
	return []string{"endpoints", "authorities", "certificate", "key", "serverName", "tls12"}
}

func readKMS(c cursor) *KMS {
	k := &KMS{}
	if !c.fields([]string{"endpoint"}, beyondEndpoint()...) {
		return k
	}
	k.Endpoint, _ = readEndpoint(c.field("endpoint"))
	if c.main {
		return k
	}
	for _, item := range c.field("endpoints").items(maxServers, "they share the time for one answer") {
		if text, ok := readEndpoint(item); ok {
			k.Endpoints = append(k.Endpoints, text)
		}
	}
	k.ServerName, _ = c.field("serverName").text()
	k.TLS12 = c.field("tls12").boolean()
	if f := c.field("authorities"); f.exists() {
		text, ok := f.text()
		if ok && !x509.NewCertPool().AppendCertsFromPEM([]byte(text)) {
			f.fail("holds no certificate in PEM", "write the certificates of those who issue the servers', with authorities: | before them")
		}
		k.Authorities = []byte(text)
	}
	k.Certificate, k.Key = readCertificate(c)
	return k
}

// readCertificate reads what the node shows a server: both parts or none. No error
// shows any of it.
func readCertificate(c cursor) ([]byte, *secret.Bytes) {
	certificate, key := c.field("certificate"), c.field("key")
	switch {
	case !certificate.exists() && !key.exists():
		return nil, nil
	case !key.exists():
		certificate.fail("has no key beside it", "write the private key of the certificate as key")
		return nil, nil
	case !certificate.exists():
		key.fail("has no certificate beside it", "write the certificate of the key as certificate")
		return nil, nil
	}
	public, ok := certificate.text()
	private, ok2 := key.text()
	if !ok || !ok2 {
		return nil, nil
	}
	text := secret.Take([]byte(private))
	if _, err := tls.X509KeyPair([]byte(public), text.Bytes()); err != nil {
		text.Wipe()
		certificate.fail("and key are not a certificate and its private key in PEM", "write both as they were issued, with certificate: | and key: | before them")
		return nil, nil
	}
	return []byte(public), text
}

func readEndpoint(c cursor) (string, bool) {
	text, ok := c.text()
	if ok {
		checkEndpoint(c, text)
	}
	return text, ok
}

// checkEndpoint refuses what the KMS client could not use. It does not show the
// endpoint, which may hold a password.
func checkEndpoint(c cursor, text string) {
	const schemes = "write grpc:// for plaintext or https:// for TLS in front of the host"
	if text == "" {
		c.fail("is empty", "write the server's URL, such as https://kms.example.com")
		return
	}
	if !strings.Contains(text, "://") {
		c.fail("has no scheme, which Talos would take for plaintext", schemes)
		return
	}
	u, err := url.Parse(text)
	if err != nil {
		c.fail("is not a URL", "write scheme://host:port, such as https://kms.example.com:443")
		return
	}
	if !slices.Contains([]string{"grpc", "grpcs", "https"}, u.Scheme) {
		// Talos would use TLS, for http:// too.
		c.fail("has an unknown scheme", schemes)
	}
	if u.Hostname() == "" {
		c.fail("has no host", "write scheme://host:port, such as https://kms.example.com:443")
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || n == 0) {
		c.fail("has a port that is out of range", "write a port from 1 to 65535")
	}
	if u.User != nil {
		c.fail("has a user name, which the protocol has no use for", "remove what is between :// and @")
	}
}
