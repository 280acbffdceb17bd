package tpmtest_test

import (
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

func pcr(t *testing.T, m *tpmtest.Machine) string {
	t.Helper()
	rsp, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(7)},
	}}}.Execute(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(rsp.PCRValues.Digests[0].Buffer)
}

// TestMachine: a restart forgets registers and loaded objects, as a reboot does.
func TestMachine(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	zero := pcr(t, m)
	tpmtest.Extend(t, m, 7, "event")
	if pcr(t, m) == zero {
		t.Fatal("extending PCR 7 does not change it")
	}
	if _, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}).Execute(m); err != nil {
		t.Fatal(err)
	}
	if h := tpmtest.Handles(t, m); len(h) != 1 {
		t.Fatalf("loaded are %v, want one object", h)
	}
	m.Restart()
	if h := tpmtest.Handles(t, m); pcr(t, m) != zero || len(h) != 0 {
		t.Errorf("a restart leaves PCR 7 or handles %v behind", h)
	}
}

// TestRecorder: what is on the wire is found, what is not is not.
func TestRecorder(t *testing.T) {
	t.Parallel()
	r := &tpmtest.Recorder{TPM: tpmtest.Start(t)}
	tpmtest.Extend(t, r, 7, "a text in the clear")
	if !r.Shows([]byte("xxtext in the xx")) || r.Shows([]byte("another text")) || r.Count() != 1 {
		t.Errorf("the recorder does not tell what it saw")
	}
}
