package role_test

import (
	"testing"

	"github.com/cryptctl/cryptctl/role"
)

func TestOf(t *testing.T) {
	for _, test := range []struct {
		organizations []string
		want          role.Role
	}{
		{nil, role.None},
		{[]string{""}, role.None},
		{[]string{"os:reader"}, role.Reader},
		{[]string{"os:operator"}, role.Operator},
		{[]string{"os:admin"}, role.Admin},
		{[]string{"os:reader", "os:admin", "os:operator"}, role.Admin},
		{[]string{"acme", "os:etcd:backup", "os:operator"}, role.Operator},
		{[]string{"os:"}, role.None},
		{[]string{"os:none"}, role.None},
		{[]string{"none"}, role.None},
		{[]string{"admin"}, role.None}, // a company may be called that
		{[]string{"OS:ADMIN"}, role.None},
		{[]string{"os:admin "}, role.None},
		{[]string{"os:admin,os:reader"}, role.None},
		{[]string{"os:impersonator", "os:meta:writer"}, role.None},
		{[]string{"system:masters"}, role.None},
	} {
		if got := role.Of(test.organizations); got != test.want {
			t.Errorf("%q gives %v, must give %v", test.organizations, got, test.want)
		}
		if got := role.Access(0).Of(test.organizations); got != test.want {
			t.Errorf("%q by role gives %v, must give %v", test.organizations, got, test.want)
		}
		if got := role.Unrestricted.Of(test.organizations); got != role.Admin {
			t.Errorf("%q unrestricted gives %v", test.organizations, got)
		}
	}
}

// TestAllows states the whole table.
func TestAllows(t *testing.T) {
	all := []role.Role{role.None, role.Reader, role.Operator, role.Admin, -1, 4, 99}
	yes := map[[2]role.Role]bool{
		{role.Reader, role.Reader}:     true,
		{role.Operator, role.Reader}:   true,
		{role.Operator, role.Operator}: true,
		{role.Admin, role.Reader}:      true,
		{role.Admin, role.Operator}:    true,
		{role.Admin, role.Admin}:       true,
	}
	for _, has := range all {
		for _, need := range all {
			if got := has.Allows(need); got != yes[[2]role.Role{has, need}] {
				t.Errorf("%d allows %d: %v", has, need, got)
			}
		}
	}
}

func TestNames(t *testing.T) {
	for _, r := range role.All() {
		if got := role.Of([]string{r.Organization()}); got != r {
			t.Errorf("%v as an organization gives %v", r, got)
		}
		for _, name := range []string{r.String(), r.Organization()} {
			if got, err := role.Parse(name); err != nil || got != r {
				t.Errorf("%q parses as %v, %v", name, got, err)
			}
		}
	}
	for _, name := range []string{"", "os:", "none", "root", "Admin", "os:os:admin"} {
		if got, err := role.Parse(name); err == nil {
			t.Errorf("%q parses as %v", name, got)
		}
	}
	if role.None.Organization() != "" || role.Role(9).String() != "none" {
		t.Error("what is no role has a name")
	}
}
