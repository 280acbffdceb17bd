// Package role says what a client may do, by the organizations in its
// certificate, as Talos has it:
//
//	os:admin     everything
//	os:operator  what needs no admin: freeze, thaw, approve, reboot
//	os:reader    what changes nothing and shows no secret
//
// Each role includes those below it. An organization that is not one of these
// gives nothing, Talos' other ones (os:etcd:backup and kin) included, and neither
// does none: who is not named may not.
//
// A node daemon with an API over TLS asks [Access.Of], with machine.features.rbac of
// its configuration. The key server asks [Of]: it always judges, since there every
// node has a certificate.
//
// This package judges names only. That a certificate is genuine is for whoever
// verified its chain.
package role

import (
	"fmt"
	"strings"
)

// Role is what a client may do. The zero value is None.
type Role int

// Roles, each including those above it.
const (
	None Role = iota
	Reader
	Operator
	Admin
)

// prefix is what Talos puts in front of its roles' names.
const prefix = "os:"

func names() []string {
	return []string{None: "none", Reader: "reader", Operator: "operator", Admin: "admin"}
}

// All returns the roles that a certificate can give, the strongest first.
func All() []Role { return []Role{Admin, Operator, Reader} }

// Of returns the strongest role that the organizations of a certificate give.
func Of(organizations []string) Role {
	for _, r := range All() {
		for _, o := range organizations {
			if o == r.Organization() {
				return r
			}
		}
	}
	return None
}

// Access is how certificates are judged: machine.features.rbac. A configuration that
// does not say, and the zero value, have it.
type Access int

// Access of machine.features.rbac true and false.
const (
	ByRole       Access = iota // by the organizations
	Unrestricted               // every genuine certificate may everything, as in Talos
)

// Of returns what a genuine certificate with these organizations gives.
func (a Access) Of(organizations []string) Role {
	if a == Unrestricted {
		return Admin
	}
	return Of(organizations)
}

// Parse returns the role of a name, with or without the os: in front.
func Parse(name string) (Role, error) {
	for _, r := range All() {
		if strings.TrimPrefix(name, prefix) == r.String() {
			return r, nil
		}
	}
	return None, fmt.Errorf("there is no role %q; use admin, operator or reader", name)
}

// Allows reports whether r includes need. What needs no role is allowed to
// nobody: a call that someone forgot to give one must not be open.
func (r Role) Allows(need Role) bool { return need.known() && r.known() && r >= need }

// Organization returns the role as it stands in a certificate, "" for None.
func (r Role) Organization() string {
	if !r.known() {
		return ""
	}
	return prefix + r.String()
}

// String returns the role's name without the os:, "none" for None and for what is
// no role.
func (r Role) String() string {
	if !r.known() {
		return names()[None]
	}
	return names()[r]
}

func (r Role) known() bool { return r > None && r <= Admin }
