// Package uki computes what a unified kernel image (UKI) will make of PCR 11,
// and signs it, without a TPM and without booting.
//
//	UKI: a PE file          .sdmagic ──> Stub, which sections it measures
//	  .linux .osrel ...     Sections ──Predict──> PCR 11 after each phase ──Policy──> policy digests
//	  .pcrpkey .pcrsig          │                                                      │
//	or section files ───────────┘                  RSA key file ──Sign──> Signatures, the .pcrsig JSON
//
// PCR 11, by the sections that are there, not empty, and measured by the stub,
// in the order of SectionNames:
//
//	P = zeros;  P = H(P | H(name | NUL));  P = H(P | H(content in memory));  then for each word of the phase path: P = H(P | H(word))
//
// Sources: systemd-stub(7), systemd-measure(1), systemd-pcrphase.service(8); UAPI
// Group, Unified Kernel Image; PE format (Microsoft); TPM 2.0 Library.
//
// What it guarantees:
//
//   - Hostile PE, JSON and PEM files give errors, never a panic, and no memory
//     or time beyond a small multiple of the file's size.
//   - Where the value would depend on the machine, or the image cannot be loaded
//     as it is written down, there is an error and no value.
//   - A policy is signed only with SHA-256 and by an RSA key of 2048 to 4096
//     bits, and never for PCRs of a SHA-1 bank.
//
// What it does not protect: a signed policy over PCR 11 says "this image was
// measured", not "this image is running". Any system that boots with PCR 11 at
// zero can extend the same digests. It has to be combined with PCR 7 or 4.
package uki
