package kms_test

import (
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/kms"
)

func TestParseEndpoint(t *testing.T) {
	for _, test := range []struct {
		text      string
		want      string // "" for an error
		plaintext bool
		problem   string
	}{
		{"grpc://kms.example.com:4050", "grpc://kms.example.com:4050", true, ""},
		{"grpc://kms.example.com", "grpc://kms.example.com:443", true, ""},
		{"https://kms.example.com", "https://kms.example.com:443", false, ""},
		{"grpcs://kms.example.com:1", "grpcs://kms.example.com:1", false, ""},
		{"HTTPS://KMS.example.com", "https://KMS.example.com:443", false, ""},
		{"https://kms.example.com/a/path?and=more#x", "https://kms.example.com:443", false, ""},
		{"grpc://10.0.0.1:4050", "grpc://10.0.0.1:4050", true, ""},
		{"https://[fd00::1]", "https://[fd00::1]:443", false, ""},
		{"https://[fe80::1%25eth0]:9", "https://[fe80::1%eth0]:9", false, ""},

		{"", "", false, "has no scheme"},
		{"kms.example.com", "", false, "has no scheme"},
		{"kms.example.com:4050", "", false, "has no scheme"},
		{"http://kms.example.com", "", false, "unknown scheme"},
		{"unix:///run/kms.sock", "", false, "unknown scheme"},
		{"https://", "", false, "no host"},
		{"https://:443", "", false, "no host"},
		{"https://kms.example.com:0", "", false, "out of range"},
		{"https://kms.example.com:65536", "", false, "out of range"},
		{"https://kms.example.com:http", "", false, "not a URL"},
		{"https://ada:hunter2@kms.example.com", "", false, "user name"},
		{"https://hunter2\x00", "", false, "not a URL"},
	} {
		e, err := kms.ParseEndpoint(test.text)
		if test.want == "" {
			if err == nil || !strings.Contains(err.Error(), test.problem) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q: %v, must be about %q", test.text, err, test.problem)
			}
			continue
		}
		if err != nil || e.String() != test.want || e.Plaintext() != test.plaintext {
			t.Errorf("%q is %v, in plaintext %v, %v; must be %s", test.text, e, e.Plaintext(), err, test.want)
		}
	}
}
