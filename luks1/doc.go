// Package luks1 reads and unlocks volumes of the older LUKS format, so that they
// can be looked at and opened. It writes none: `cryptsetup convert --type luks2`
// makes such a volume one that package luks can change.
//
// The layout (LUKS1 On-Disk Format Specification 1.1.1, sections 2.1 and 2.2) is
// one header of 592 bytes, all numbers big-endian, without a checksum or a copy:
//
//	0        592                                         payload offset
//	| header |  [material 0]  [material 1] ... [material 7]  | data ...
//
// The unlocking itself, from the passphrase to the volume key, is that of
// github.com/anatol/luks.go, which panics on some headers and has no limits. So
// the header is read once and checked here, and luks.go gets a volume in memory
// that holds one slot: a header made of what was checked, and that slot's
// encrypted material. It never sees the disk.
//
// What it guarantees:
//
//   - [Read] refuses a header whose slots lie outside of the device, over each
//     other, over the header or over the data, before it is used for anything.
//   - [Header.Unlock] refuses what [Header.Trust] refuses: other ciphers than
//     aes-xts-plain64, unknown hashes, iterations above the caller's limits.
//   - The volume key was confirmed by the header's digest, twice: by luks.go and
//     here.
//   - A panic in luks.go is an error.
//
// What it does not protect: luks.go keeps the passphrase's derivatives in memory
// that is neither locked nor, all of it, wiped. The volume key is moved to a
// [secret.Bytes] as soon as it is returned.
package luks1
