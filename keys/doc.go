// Package keys makes the keyslots of a LUKS2 volume match a list of wanted keys,
// without ever locking anyone out.
//
//	Key       one wanted key: a slot, a kind and the Provider of its passphrase
//	Provider  makes a passphrase (and a token to store), recovers it from a token
//	Open      asks all providers at once and unlocks with the first that works
//	Session   the open volume: State ──Plan──> steps ──Apply──> one header commit
//	Report    what became of each slot
//
// What it guarantees:
//
//   - Plan is a pure function: what is there, what is wanted and what was seen to
//     open. It does no I/O and can be shown before it is run.
//   - No key is removed or replaced unless a configured key was seen to open the
//     volume, in this run. A new key counts as seen when its provider recovered
//     it again, its slot opened once in memory, and the device returned what was
//     written; only then does the header point at it.
//   - All changes are one commit: at every instant the old set opens or the new.
//   - Slots that this package did not make are foreign and stay, unless the
//     caller prunes or adopts them.
//   - One provider that fails or hangs does not stop the others. Keys of servers
//     are waited for only where nothing else is left ([Open]), or where nobody waits
//     ([Session.ApplyLocal], and Apply after it); no answer of theirs, and none,
//     makes their slots go.
//
// A provider may be able to do more: a [Witness] tells which volume its token is
// for, a [Checker] whether a token is as configured, and Key.Reseal whether a
// stale key may be made anew.
//
// A slot counts as ours, and as unchanged, by a fingerprint under the volume key
// (record.go): nobody who lacks that key can make one.
package keys
