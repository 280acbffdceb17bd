// Package meta reads and writes META, the partition of 1 MiB that a node reads
// before it can open anything: the encryption of STATE, an override of its UUID,
// staged upgrades. It holds values by tag and is byte-compatible with Talos in
// both directions (siderolabs/go-adv v1.0.0, adv/talos and adv/syslinux).
//
//	0x00000   copy 1   magic | records, ascending tags | zeros | SHA-256 | magic
//	0x40000   copy 2   the same 256 KiB again
//	0x80000   unused, never touched
//	0xffc00   legacy   syslinux ADV, 512 bytes, twice: read, deleted from, else left as it is
//
// A value is looked up in copy 1, or in copy 2 when copy 1 is damaged; what is
// not there is looked up in the legacy vector. The flow:
//
//	Read ──> Meta ──Set, Delete (in memory)──> Commit
//	  └──both copies damaged──> *DamageError ──Repair with Reset──> empty
//
// What it guarantees:
//
//   - Reading never writes. Nothing on the disk makes it panic or allocate more
//     than the partition's size.
//   - A commit is one step: whatever is cut off, all old values are read or all
//     new ones (commit.go).
//   - Damage is never taken for "no values": only a partition of zeros is empty.
//
// What it does not protect: META is neither encrypted nor authenticated. Whoever
// can write the disk can change it, or bring back an older one; whoever can read
// it sees all values, a static passphrase of STATE among them. What is read here
// may choose among keys, and must never make a volume less protected than it is.
package meta
