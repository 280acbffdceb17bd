package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/kms/store/etcd"
	"github.com/cryptctl/cryptctl/pki"
)

// kmsStore is where a key server keeps its nodes: a file, or etcd.
type kmsStore struct {
	File string
	Etcd *kmsEtcd
}

// kmsEtcd is a cluster of etcd.
type kmsEtcd struct {
	Endpoints   []string      `yaml:"endpoints"`
	Certificate string        `yaml:"certificate"`
	Key         string        `yaml:"key"`
	Authorities string        `yaml:"authorities"`
	Prefix      string        `yaml:"prefix"`
	Timeout     time.Duration `yaml:"timeout"`
}

// UnmarshalYAML implements yaml.Unmarshaler: text is a file, a mapping says etcd.
func (s *kmsStore) UnmarshalYAML(n *yaml.Node) error {
	*s = kmsStore{}
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&s.File)
	}
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: store: want the name of a file, or etcd: with its endpoints", n.Line)
	}
	var other struct {
		Etcd *kmsEtcd `yaml:"etcd"`
	}
	if err := n.Load(&other, yaml.WithKnownFields()); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	s.Etcd = other.Etcd
	return nil
}

func (s *kmsStore) check() error {
	if s.Etcd != nil {
		return s.Etcd.check()
	}
	if s.File == "" {
		return emptyField("store")
	}
	return nil
}

func (s *kmsStore) paths() []*string {
	if e := s.Etcd; e != nil {
		return []*string{&e.Certificate, &e.Key, &e.Authorities}
	}
	return []*string{&s.File}
}

// plaintext reports whether all endpoints are http://.
func (e *kmsEtcd) plaintext() bool {
	for _, text := range e.Endpoints {
		if u, err := url.Parse(text); err != nil || u.Scheme != "http" {
			return false
		}
	}
	return true
}

func (e *kmsEtcd) check() error {
	if len(e.Endpoints) == 0 {
		return errors.New("store.etcd.endpoints: there is none; give those of the members, such as https://etcd-1.example:2379")
	}
	plain := 0
	for i, text := range e.Endpoints {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" || u.Path != "" && u.Path != "/" || u.RawQuery != "" {
			// It is not quoted: a password may be in it.
			return fmt.Errorf("store.etcd.endpoints[%d]: must look like https://etcd-1.example:2379, without a user and a path", i)
		}
		if u.Scheme == "http" {
			plain++
		}
	}
	files := e.Certificate != "" || e.Key != "" || e.Authorities != ""
	switch {
	case plain > 0 && plain < len(e.Endpoints):
		return errors.New("store.etcd.endpoints: some are https and some http; etcd is as open as the most open of them: use https for all")
	case plain > 0 && files:
		return errors.New("store.etcd: certificate, key and authorities are not used over http://; write https://, or remove them")
	case plain == 0 && (e.Certificate == "" || e.Key == ""):
		return errors.New("store.etcd: certificate and key are needed, which etcd knows this server by; cryptctl pki cert --client makes them (http:// endpoints need none, and show every record to the network)")
	case e.Prefix != "" && e.Prefix[len(e.Prefix)-1] != '/':
		return fmt.Errorf("store.etcd.prefix: %q must end with a slash", e.Prefix)
	case e.Timeout < 0:
		return fmt.Errorf("store.etcd.timeout: %s; a duration such as 5s", e.Timeout)
	}
	return nil
}

// open begins to connect; the cluster need not be there.
func (e *kmsEtcd) open(log *slog.Logger) (*etcd.Store, error) {
	o := etcd.Options{Endpoints: e.Endpoints, Prefix: e.Prefix, Timeout: e.Timeout}
	if e.plaintext() {
		log.Warn("etcd is asked without TLS: whoever is on the way reads and changes the nodes' records")
		return etcd.Open(o)
	}
	var err error
	if o.TLS, err = e.tls(log); err != nil {
		return nil, fmt.Errorf("store.etcd: %w", err)
	}
	return etcd.Open(o)
}

// tls follows the files of the client certificate; authorities are those of now.
func (e *kmsEtcd) tls(log *slog.Logger) (*tls.Config, error) {
	r, err := pki.NewReloader(pki.Files{Cert: e.Certificate, Key: e.Key, Authorities: e.Authorities, Reloaded: reloaded(log, "etcd")})
	if err != nil {
		return nil, err
	}
	return r.Client(), nil
}
