package config

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"path"
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
// files are passed over. What else is done to the bundle makes nobody trusted here.
func (r *reader) trustedFiles(c cursor) {
	c = r.aside(c)
	if c.node == nil || !c.exists() {
		return
	}
	for _, file := range c.items(maxFiles, "no machine has as many") {
		if !file.exists() || !file.mapping() {
			continue
		}
		name, _ := file.field("path").text()
		if !slices.Contains(bundles(), path.Clean(name)) {
			continue
		}
		op := file.field("op")
		switch text, ok := op.text(); {
		case ok && text == "append":
			r.trust(file.field("content"))
		case ok:
			op.fail("is not append, by which alone authorities are trusted", "write op: append")
		}
	}
}

// trustedRoots reads a TrustedRootsConfig.
func (r *reader) trustedRoots(root cursor) {
	root = r.aside(root)
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
	}
	r.config.TrustedRoots = append(r.config.TrustedRoots, bundle...)
}

// certificates returns the certificates of a bundle, as PEM without what is between
// them. What is none is left out, and the error says what the first of that is.
func certificates(bundle []byte) (good []byte, first error) {
	wrong := func(text string) {
		if first == nil {
			first = errors.New(text)
		}
	}
	for {
		block, rest := pem.Decode(bundle)
		if block == nil {
			break
		}
		bundle = rest
		if block.Type != "CERTIFICATE" {
			wrong("has a block that is no certificate")
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			wrong("has a certificate that cannot be read")
			continue
		}
		good = append(good, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	if bytes.Contains(bundle, []byte("-----BEGIN")) {
		wrong("has a block that is no PEM")
	}
	if len(good) == 0 {
		wrong("holds no certificate")
	}
	return good, first
}
