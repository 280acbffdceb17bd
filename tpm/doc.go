// Package tpm seals the passphrases of LUKS slots in a TPM 2.0, so that a machine
// opens its disks by itself as long as it boots what it should.
//
//	Provider  a keys.Provider: Enroll seals, Recover unseals
//	Policy    under which conditions the TPM gives a key back
//	Device    a TPM: the machine's, one that Dial names, or any transport; what it says of itself
//	Error     why it did not work, as one of a few reasons that callers act on
//	Latch     after which nothing is unsealed in this boot any more
//
// What our own tokens hold (formats of others seal the passphrase itself):
//
//	TPM ──storage root key──> sealed object: 32 random bytes, policy, PIN
//	                               │ policy fulfilled
//	                          AES-256-GCM ──> passphrase | identity of the volume
//	                               └ bound to LUKS UUID, slot, volume and policy
//
// What it guarantees:
//
//   - Secrets cross the bus encrypted, under sessions salted to the storage root
//     key that the token pins. A seal has no pin yet, the first one and each that
//     follows: it takes the storage root key that it is shown.
//   - Nothing of what is sealed, of passphrases, auth values and PINs of systemd's
//     tokens is left behind in the Go heap: go-tpm, whose copies nobody can wipe,
//     has them encrypted only, and MACs wipe their padded keys.
//   - A token cannot make the PIN cheaper to guess than new ones have it.
//   - Nothing stays loaded in the TPM: objects and sessions are flushed on every
//     path, whoever manages the TPM's memory. Nothing persistent is ever written
//     or evicted.
//   - A seal counts after it was unsealed once and gave the same bytes.
//   - Policies are computed here and compared with the TPM's own result before
//     the TPM is asked for the secret. What moved is named.
//   - A policy that protects nothing is refused: one without a PIN and without any
//     of the PCRs 4, 7, 17 and 18. All others, a signed PCR 11 too, are the same
//     for any system that runs on the machine, or can be extended by it to the
//     same values.
//   - Nothing that the TPM answers makes the process panic, hang beyond the
//     context, or allocate without bound.
//
// What it does not protect: a machine whose firmware, boot loader and kernel are
// genuine hands out its key to whoever controls it after the boot, unless the
// latch is closed. An attacker who relays between the TPM and the CPU while the
// right system boots can run a policy session of his own; only a PIN, or a TPM
// that has no bus, stops that. While a key is sealed, and healing and a changed
// setting seal one too, he can show a storage root key of his own, and then has
// what is sealed; so he can at every unseal where the token pins none: those of
// systemd before 254, and those written in its format here.
//
// The storage root key that a token pins is worth as much as the token, which is
// not authenticated. Who writes the header, and answers for the TPM, can pin one of
// his own: then he has a MAC by the PIN that is typed, and guesses at Argon2id's
// price, or at that of 10000 rounds of PBKDF2 or of none in systemd's tokens,
// without a TPM that counts.
//
// The AES keys of sessions and envelopes stay in the Go heap until they are
// overwritten; with the traffic on the bus, or the token, they give what was
// sealed. So do the buffers of the hash that Argon2id begins with, which hold the
// PIN of our own tokens: its memory goes back to the system when it ends, as far as
// nothing else is in use beside it.
package tpm
