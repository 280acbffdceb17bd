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
//     key that the token pins. The first seal has no pin yet: it takes the
//     storage root key that it is shown.
//   - Nothing of what is sealed, of passphrases and auth values is left behind in
//     the Go heap: go-tpm, whose copies nobody can wipe, has them encrypted only.
//   - Nothing stays loaded in the TPM: objects and sessions are flushed on every
//     path, whoever manages the TPM's memory. Nothing persistent is ever written
//     or evicted.
//   - A seal counts after it was unsealed once and gave the same bytes.
//   - Policies are computed here and compared with the TPM's own result before
//     the TPM is asked for the secret. What moved is named.
//   - A policy that protects nothing is refused: no PCR at all, or only a signed
//     PCR 11, which any other system can extend to the signed value by itself.
//   - Nothing that the TPM answers makes the process panic, hang beyond the
//     context, or allocate without bound.
//
// What it does not protect: a machine whose firmware, boot loader and kernel are
// genuine hands out its key to whoever controls it after the boot, unless the
// latch is closed. An attacker who relays between the TPM and the CPU while the
// right system boots can run a policy session of his own; only a PIN, or a TPM
// that has no bus, stops that. Tokens of systemd before 254, and those written in
// its format here, pin no storage root key, so there the attacker may also offer
// one of his own. The AES keys of sessions and envelopes stay in the Go heap until
// they are overwritten; with the traffic on the bus, or the token, they give what
// was sealed.
package tpm
