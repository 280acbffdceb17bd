// Package luks is a LUKS2 engine: it reads, checks, unlocks and writes LUKS2
// headers on any [Device], without cryptsetup and without the kernel. It knows
// nothing of where passphrases come from.
//
// On the device (LUKS2 On-Disk Format Specification 1.1.1, section 2):
//
//	0            hdr_size      2*hdr_size                    data offset
//	| primary    | secondary   | keyslots area               | data ...
//	| bin | JSON | bin | JSON  | [area] [area] zeros [area]  |
//
// The flow:
//
//	Read ──> Header ──Trust──> what we refuse, and why
//	           │
//	           ├─Unlock(passphrase)──> VolumeKey ──Seal(passphrase)──> SealedKey
//	           │                                                        │
//	           └─Commit(AddKeyslot(…), RemoveKeyslot(…), SetToken(…)) <─┘
//
// What it guarantees:
//
//   - Reading and checking never write.
//   - A header is read once; unlocking and planning look at that copy only.
//   - A header is refused unless it is valid by the format's rules and trusted by
//     ours ([Header.Trust]); a cost above the caller's limits is refused before
//     memory is allocated.
//   - Every change is one atomic step (commit.go): whatever is cut off, the header
//     opens with the old keys or with the new ones, and the next change wipes what
//     an interrupted one left.
//   - The last keyslot goes only by [Header.Erase].
//
// What it does not protect: the header is not authenticated. Whoever can write
// the disk can bring back an older header with its keys, or another volume
// altogether; that the volume is the one that was meant must be checked after
// unlocking.
package luks
