package tpmtest

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Handles returns what is loaded: transient objects, and sessions.
func Handles(t testing.TB, dev transport.TPM) []tpm2.TPMHandle {
	t.Helper()
	var all []tpm2.TPMHandle
	for _, first := range []uint32{0x80000000, 0x02000000, 0x03000000} {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 64}.Execute(dev)
		if err != nil {
			t.Fatalf("ask for the handles from %#x: %v", first, err)
		}
		list, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list.Handle...)
	}
	return all
}

// Flush unloads all that is loaded.
func Flush(t testing.TB, dev transport.TPM) {
	t.Helper()
	for _, h := range Handles(t, dev) {
		if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(dev); err != nil {
			t.Fatalf("flush %#x: %v", uint32(h), err)
		}
	}
}

// Extend changes a PCR in all banks.
func Extend(t testing.TB, dev transport.TPM, pcr int, event string) {
	t.Helper()
	_, err := tpm2.PCREvent{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		EventData: tpm2.TPM2BEvent{Buffer: []byte(event)},
	}.Execute(dev)
	if err != nil {
		t.Fatalf("extend PCR %d: %v", pcr, err)
	}
}

// Clear does what the firmware does when it is told to clear the TPM: another
// storage seed, the endorsement seed as it was.
func Clear(t testing.TB, dev transport.TPM) {
	t.Helper()
	cmd := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)}}
	if _, err := cmd.Execute(dev); err != nil {
		t.Fatalf("clear: %v", err)
	}
}

// MaxTries sets how many wrong PINs lock the TPM. go-tpm has no such command.
func MaxTries(t testing.TB, dev transport.TPM, tries uint32) {
	t.Helper()
	command := []byte{
		0x80, 0x02, 0, 0, 0, 39, 0, 0, 0x01, 0x3a, // TPM2_DictionaryAttackParameters
		0x40, 0, 0, 0x0a, // of the lockout hierarchy
		0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0, // by its empty password
	}
	command = binary.BigEndian.AppendUint32(command, tries)
	command = append(command, 0, 0, 0x03, 0xe8, 0, 0, 0x03, 0xe8) // seconds
	answer, err := dev.Send(command)
	if err != nil || len(answer) < 10 || binary.BigEndian.Uint32(answer[6:]) != 0 {
		t.Fatalf("set the limit of wrong PINs: %x, %v", answer, err)
	}
}
