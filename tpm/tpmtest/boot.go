package tpmtest

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Policy11 is PolicyPCR over PCR 11 by the letter of TPM 2.0 Part 3, 23.7, not by
// the code under test.
func Policy11(value []byte) []byte {
	values := sha256.Sum256(value)
	text := make([]byte, 32)
	text = append(text, 0, 0, 1, 0x7f)                   // TPM_CC_PolicyPCR
	text = append(text, 0, 0, 0, 1, 0, 0x0b, 3, 0, 8, 0) // one selection: SHA-256, PCR 11
	sum := sha256.Sum256(append(text, values[:]...))
	return sum[:]
}

// SignPCR11 signs a value of PCR 11 as systemd-measure writes it.
func SignPCR11(key *rsa.PrivateKey, value []byte) ([]byte, error) {
	policy := Policy11(value)
	sum := sha256.Sum256(policy)
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		return nil, err
	}
	print := sha256.Sum256(x509.MarshalPKCS1PublicKey(&key.PublicKey))
	return json.Marshal(map[string]any{"sha256": []any{map[string]any{
		"pcrs": []int{11}, "pkfp": fmt.Sprintf("%x", print), "pol": fmt.Sprintf("%x", policy), "sig": signature,
	}}})
}

// SecureBoot writes the variables of a firmware into a folder as Linux shows it:
// keys are enrolled, and Secure Boot is on or off.
func SecureBoot(t testing.TB, dir string, on bool) {
	t.Helper()
	vars := filepath.Join(dir, "efivars")
	if err := os.MkdirAll(vars, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string]bool{"SecureBoot": on, "SetupMode": false} {
		value := []byte{6, 0, 0, 0, 0}
		if set {
			value[4] = 1
		}
		if err := os.WriteFile(filepath.Join(vars, name+"-8be4df61-93ca-11d2-aa0d-00e098032b8c"), value, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
