// Package tpmtest is for tests of what speaks to a TPM.
//
//	Start     a TPM of its own for one test: swtpm, no root, no network
//	Recorder  writes down every byte that crosses the bus
//	Liar      answers in the TPM's place, whatever a test makes it say
//	Measure   extends PCRs and writes the event log of it, as firmware does
//	Handles   what is loaded in a TPM, to show that nothing is left behind
//
// A test that needs swtpm fails where it is not installed; it is not skipped.
package tpmtest
