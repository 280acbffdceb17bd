// Package token reads and writes what a LUKS2 header keeps of a key that is
// sealed in a TPM: the tokens of cryptctl, Talos and systemd.
//
//	cryptctl-tpm2   Own      an envelope under a sealed key; our own
//	talos-tpm2      Talos    the passphrase itself sealed; Talos, both versions
//	systemd-tpm2    Systemd  the passphrase itself sealed; systemd from 248 on
//
// A token is read strictly where that matters and leniently where other writers
// add things: members that are not known are ignored, blobs have a named limit,
// and what asks for something that is not understood is an error, never a guess.
// A token is not authenticated: what it says becomes true by the TPM only.
//
// Sealed objects are held as the TPM structures themselves, without the size
// in front of them; each format writes them its own way.
package token
