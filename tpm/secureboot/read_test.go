package secureboot_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/tpm/secureboot"
)

const (
	global = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	shim   = "-605dab50-e046-4300-abb6-3dd810dd8b23"
)

// vars are variables by name: attributes and value.
type vars map[string]string

// firmware makes a directory as Linux shows it.
func firmware(t testing.TB, v vars) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "efivars"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range v {
		if err := os.WriteFile(filepath.Join(dir, "efivars", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	on  = "\x06\x00\x00\x00\x01"
	off = "\x06\x00\x00\x00\x00"
)

func TestRead(t *testing.T) {
	t.Parallel()
	const boot = "BootOrder" + global
	tests := []struct {
		name     string
		v        vars
		firmware secureboot.Firmware
		mode     secureboot.Mode
		enforced bool
		words    string
	}{
		{"no Secure Boot", vars{boot: "\x07\x00\x00\x00\x00\x00"}, secureboot.NoSecureBoot, "", false, "does not know Secure Boot"},
		{"on", vars{"SecureBoot" + global: on, "SetupMode" + global: off}, secureboot.SecureBoot, secureboot.ModeUser, true, "on (user mode)"},
		{"deployed", vars{"SecureBoot" + global: on, "SetupMode" + global: off, "DeployedMode" + global: on, "AuditMode" + global: off}, secureboot.SecureBoot, secureboot.ModeDeployed, true, "on (deployed mode)"},
		{"off", vars{"SecureBoot" + global: off, "SetupMode" + global: off}, secureboot.SecureBoot, secureboot.ModeUser, false, "off (user mode): keys are enrolled; turn it on"},
		{"setup", vars{"SecureBoot" + global: off, "SetupMode" + global: on}, secureboot.SecureBoot, secureboot.ModeSetup, false, "off (setup mode): no platform key"},
		{"audit", vars{"SecureBoot" + global: off, "SetupMode" + global: on, "AuditMode" + global: on}, secureboot.SecureBoot, secureboot.ModeAudit, false, "off (audit mode)"},
		{"shim off", vars{"SecureBoot" + global: on, "SetupMode" + global: off, "MokSBStateRT" + shim: on}, secureboot.SecureBoot, secureboot.ModeUser, false, "undone"},
		{"shim on", vars{"SecureBoot" + global: on, "SetupMode" + global: off, "MokSBStateRT" + shim: off}, secureboot.SecureBoot, secureboot.ModeUser, true, "on (user mode)"},
		{"shim's variable stored by a program", vars{"SecureBoot" + global: on, "SetupMode" + global: off, "MokSBStateRT" + shim: "\x07\x00\x00\x00\x01"}, secureboot.SecureBoot, secureboot.ModeUser, true, "on (user mode)"},
		{"of another vendor", vars{"SecureBoot" + shim: on, "SetupMode" + global: off}, secureboot.NoSecureBoot, "", false, "does not know"},

		{"stored by a program", vars{"SecureBoot" + global: "\x07\x00\x00\x00\x01", "SetupMode" + global: off}, secureboot.SecureBoot, secureboot.ModeUser, false, "in doubt: the variable SecureBoot has the attributes 0x7"},
		{"not at runtime", vars{"SecureBoot" + global: "\x02\x00\x00\x00\x01", "SetupMode" + global: off}, secureboot.SecureBoot, secureboot.ModeUser, false, "in doubt"},
		{"alone", vars{"SecureBoot" + global: on}, secureboot.SecureBoot, secureboot.ModeUser, false, "in doubt: there is a variable SecureBoot and none"},
		{"on in setup mode", vars{"SecureBoot" + global: on, "SetupMode" + global: on}, secureboot.SecureBoot, secureboot.ModeSetup, false, "in setup mode, in which it cannot be on"},
		{"on in audit mode", vars{"SecureBoot" + global: on, "SetupMode" + global: off, "AuditMode" + global: on}, secureboot.SecureBoot, secureboot.ModeAudit, false, "in audit mode, in which it cannot be on"},
		{"deployed without keys", vars{"SecureBoot" + global: on, "SetupMode" + global: on, "DeployedMode" + global: on}, secureboot.SecureBoot, secureboot.ModeSetup, false, "in doubt"},
	}
	for _, test := range tests {
		s, err := secureboot.Read(firmware(t, test.v))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if s.Firmware != test.firmware || s.Mode != test.mode || s.Enforced() != test.enforced || !strings.Contains(s.String(), test.words) {
			t.Errorf("%s: %s, %s, enforced %v: %s", test.name, s.Firmware, s.Mode, s.Enforced(), s.String())
		}
		if strings.HasPrefix(s.String(), "on") != s.Enforced() {
			t.Errorf("%s: the words and the answer differ: %s", test.name, s.String())
		}
	}
}

// TestAbsent: no EFI, and EFI whose variables are not shown.
func TestAbsent(t *testing.T) {
	t.Parallel()
	s, err := secureboot.Read(filepath.Join(t.TempDir(), "none"))
	if err != nil || s.Firmware != secureboot.NoEFI || s.Enforced() || s.String() != "not available: the machine was not started by EFI firmware" {
		t.Errorf("%v, %v", s, err)
	}
	if s := new(secureboot.State); s.Enforced() || s.String() != "not available: the machine was not started by EFI firmware" {
		t.Errorf("the zero value is %v", s)
	}
	for _, dir := range []string{t.TempDir(), firmware(t, nil)} {
		if s, err := secureboot.Read(dir); !errors.Is(err, secureboot.ErrNotMounted) {
			t.Errorf("%v, %v", s, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := secureboot.Read(file); err == nil {
		t.Errorf("%v of a file", s)
	}
}

// TestMalformed: a variable that is not as it should be is an error, whichever.
func TestMalformed(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"SecureBoot" + global, "SetupMode" + global, "AuditMode" + global, "DeployedMode" + global, "MokSBStateRT" + shim} {
		for _, content := range []string{"", "\x06", "\x06\x00\x00\x00", "\x06\x00\x00\x00\x02", "\x06\x00\x00\x00\x01\x00", strings.Repeat("\x01", 100000)} {
			v := vars{"SecureBoot" + global: on, "SetupMode" + global: off}
			v[name] = content
			short, _, _ := strings.Cut(name, "-")
			if s, err := secureboot.Read(firmware(t, v)); err == nil || !strings.Contains(err.Error(), "EFI variable "+short) || len(err.Error()) > 300 {
				t.Errorf("%s is %.10q: %v, %v", name, content, s, err)
			}
		}
	}
	dir := firmware(t, vars{"SetupMode" + global: off})
	if err := os.Mkdir(filepath.Join(dir, "efivars", "SecureBoot"+global), 0o755); err != nil {
		t.Fatal(err)
	}
	if s, err := secureboot.Read(dir); err == nil {
		t.Errorf("%v of a directory", s)
	}
}
