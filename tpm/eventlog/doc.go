// Package eventlog reads the log that firmware, boot loaders and kernels keep of
// what they extended into the PCRs of a TPM, and says in words what is in it.
//
//	TCG_PCR_EVENT        PCR | EV_NO_ACTION | 20 zero bytes | size | Spec ID Event03: banks, digest sizes
//	TCG_PCR_EVENT2 ...   PCR | type | count | (algorithm | digest)... | size | data
//
// The flow:
//
//	Read, Parse ──> Log ──Replay──> the values that the PCRs must have
//	                 │ ├──Compare──> which PCRs have another, or later, value
//	                 │ └──Describe─> every event in words
//	                 └──Record──> Record, kept when a key is sealed ──Explain──> what moved which PCR since
//	                                └─Pack, Unpack─> the few bytes that a token has room for
//
// Sources: TCG PC Client Platform Firmware Profile, version 1.05 and 1.06 (9,
// "Event Logging"; 10, the types of events); UEFI Specification 2.10 (variables,
// signature databases, device paths); systemd-stub(7).
//
// What it guarantees:
//
//   - Nothing in a log makes it panic, loop, or allocate more than a small
//     multiple of the log's size. Every size and count meets a limit first, and
//     an error names the event and the byte.
//   - Text that comes from a log is printable and short: it moves no cursor of a
//     terminal that shows it.
//   - Where the digest of an event is that of its data, Describe checks it, and
//     says so if the two do not belong together.
//
// What it does not protect: a log is a claim. Whoever controls the operating
// system can hand over another one. Only its digests count, and only for a bank
// and PCRs where the replay gives the TPM's own values; the data of events whose
// digest is that of something else (an image, a section, an initrd) stay a claim
// even then.
//
// Logs of the old format, which have SHA-1 digests only, are refused with
// ErrLegacy.
package eventlog
