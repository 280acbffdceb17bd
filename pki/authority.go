package pki

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"

	"github.com/cryptctl/cryptctl/role"
)

// Lives that certificates get when nothing else is said.
const (
	AuthorityTTL = 10 * 365 * 24 * time.Hour
	DefaultTTL   = 24 * time.Hour
)

// skew is how far in the past certificates begin: clocks differ.
const skew = 5 * time.Minute

// Authority signs certificates.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes an authority that signs itself. Its name is for people; ttl 0
// means [AuthorityTTL].
func NewAuthority(name string, ttl time.Duration) (*Authority, Pair, error) {
	if name == "" {
		return nil, Pair{}, errors.New("the authority has no name; give it one that people will recognise")
	}
	if ttl == 0 {
		ttl = AuthorityTTL
	}
	t, err := template(name, ttl)
	if err != nil {
		return nil, Pair{}, err
	}
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, Pair{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, public, private)
	if err != nil {
		return nil, Pair{}, fmt.Errorf("sign the authority %s: %w", name, err)
	}
	pair, err := encode(der, private)
	if err != nil {
		return nil, Pair{}, err
	}
	a, err := ParseAuthority(pair)
	return a, pair, err
}

// ParseAuthority reads an authority: a certificate that may sign, and its key, of
// any kind that Go signs with.
func ParseAuthority(p Pair) (*Authority, error) {
	cert, key, err := p.parse()
	switch {
	case err != nil:
		return nil, err
	case !cert.IsCA || !cert.BasicConstraintsValid || cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, fmt.Errorf("the certificate of %q is not that of an authority; give the one that issues, not one that was issued", cert.Subject.CommonName)
	}
	return &Authority{cert, key}, nil
}

// Request says what a certificate is for.
type Request struct {
	// Name is the subject's common name: a host, a person, a node's UUID.
	Name string
	// Roles of a client.
	Roles []role.Role
	// TTL is how long it lives. Default [DefaultTTL].
	TTL time.Duration
	// DNS and IPs are the names and addresses of a server; clients may have some.
	DNS []string
	IPs []netip.Addr
	// Server and Client say which side of a connection it may be. One is needed.
	Server, Client bool
}

// Issue makes a key and signs a certificate for it.
func (a *Authority) Issue(r Request) (Pair, error) {
	if err := r.check(); err != nil {
		return Pair{}, fmt.Errorf("the certificate of %q: %w", r.Name, err)
	}
	if r.TTL == 0 {
		r.TTL = DefaultTTL
	}
	t, err := template(r.Name, r.TTL)
	if err != nil {
		return Pair{}, err
	}
	if t.NotAfter.After(a.cert.NotAfter) {
		return Pair{}, fmt.Errorf("the certificate of %q would live until %s, its authority only until %s; ask for a shorter life, or make a new authority",
			r.Name, t.NotAfter.Format(time.DateOnly), a.cert.NotAfter.Format(time.DateOnly))
	}
	r.fill(t)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return Pair{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, public, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("sign the certificate of %q: %w", r.Name, err)
	}
	return encode(der, private)
}

func (r Request) check() error {
	switch {
	case r.Name == "":
		return errors.New("it has no name")
	case !r.Server && !r.Client:
		return errors.New("it is for neither a server nor a client; say which")
	case len(r.Roles) > 0 && r.Server:
		return errors.New("roles are for clients, and it is for a server; give the server and the person a certificate each")
	case r.Server && len(r.DNS) == 0 && len(r.IPs) == 0:
		return errors.New("a server needs the names or addresses that clients call it by")
	case r.TTL < 0:
		return fmt.Errorf("a life of %s", r.TTL)
	}
	for _, name := range r.DNS {
		if name == "" || net.ParseIP(name) != nil {
			return fmt.Errorf("%q is no DNS name; addresses have a list of their own", name)
		}
	}
	for _, ip := range r.IPs {
		if !ip.IsValid() || ip.Zone() != "" {
			return fmt.Errorf("%q is no address that a certificate can hold", ip)
		}
	}
	for _, each := range r.Roles {
		if each.Organization() == "" {
			return fmt.Errorf("%d is no role", each)
		}
	}
	return nil
}

func (r Request) fill(t *x509.Certificate) {
	t.KeyUsage, t.BasicConstraintsValid = x509.KeyUsageDigitalSignature, true
	if r.Server {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if r.Client {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	for _, each := range r.Roles {
		t.Subject.Organization = append(t.Subject.Organization, each.Organization())
	}
	t.DNSNames = r.DNS
	for _, ip := range r.IPs {
		t.IPAddresses = append(t.IPAddresses, ip.Unmap().AsSlice())
	}
}

// template is what all certificates have in common.
func template(name string, ttl time.Duration) (*x509.Certificate, error) {
	// RFC 5280, 4.1.2.2: positive, at most 20 bytes. 2^128 of them do not repeat.
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-skew),
		NotAfter:     now.Add(ttl),
	}, nil
}
