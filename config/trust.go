package config

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
)

// maxFiles bounds machine.files.
const maxFiles = 1000

// bundles are the paths of the trusted authorities in Talos' root file system, to
// which files are appended.
func bundles() []string {
	return []string{"/etc/ssl/certs/ca-certificates", "/etc/ssl/certs/ca-certificates.crt"}
}

// trustedFiles reads what machine.files appends to the bundle of authorities; other
// files are passed over.
func (r *reader) trustedFiles(c cursor) {
	if c.node == nil || !c.exists() {
		return
	}
	for _, file := range c.items(maxFiles, "no machine has as many") {
		if !file.exists() || !file.mapping() {
			continue
		}
		op, _ := file.field("op").text()
		path, _ := file.field("path").text()
		if op == "append" && slices.Contains(bundles(), path) {
			r.trust(file.field("content"))
		}
	}
}

// trustedRoots reads a TrustedRootsConfig.
func (r *reader) trustedRoots(root cursor) {
	if root.fields([]string{"apiVersion", "kind", "name", "certificates"}) {
		root.named()
		r.trust(root.field("certificates"))
	}
}

// trust adds certificates to those that are trusted.
func (r *reader) trust(c cursor) {
	text, ok := c.text()
	if !ok {
		return
	}
	bundle, err := certificates([]byte(text))
	if err != nil {
		c.fail(err.Error(), "write the certificates in PEM, as they were issued")
		return
	}
	r.config.TrustedRoots = append(r.config.TrustedRoots, bundle...)
}

// certificates returns the certificates of a bundle, as PEM without what is between
// them.
func certificates(bundle []byte) ([]byte, error) {
	var out []byte
	for {
		block, rest := pem.Decode(bundle)
		switch {
		case block == nil && bytes.Contains(bundle, []byte("-----BEGIN")):
			return nil, errors.New("has a block that is no PEM")
		case block == nil && len(out) == 0:
			return nil, errors.New("holds no certificate")
		case block == nil:
			return out, nil
		case block.Type != "CERTIFICATE":
			return nil, errors.New("has a block that is no certificate")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, errors.New("has a certificate that cannot be read")
		}
		out, bundle = append(out, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...), rest
	}
}
