// Package keeper is the core of the key server: it seals data for nodes and opens
// it again, if the policy says so, and writes down that it did.
//
//	              ┌──────────────────────────── Keeper ───────────────────────────┐
//	 Seal, Unseal │  record of the node ──> decision ──> node key ──> blob        │
//	 ────────────>│   kms/store              kms/policy   kms/kek      kms/blob   │
//	 <────────────│                                                        │      │
//	   answer     │           kms/audit: synced <──────────────────────────┘      │
//	              └──────────────────────────────────────────────────────────────┘
//
//	node/<uuid>       JSON: state, limits, and the node's keys, each wrapped by the KEK
//	import/<sha256>   JSON: a blob of the reference server: whose it is, and its data
//	                  sealed under that node's key
//	imports/<uuid>/   + sha256: the reference blobs that a node brought, by name only
//	rules             JSON: the policy's rules for all nodes
//	kek               JSON: which version of the key-encryption key wraps, at all
//	                  servers, and which are retired
//
// A node key is 32 random bytes. The newest version seals; older ones open until
// they are retired. Versions count up and are never used twice, not even after a
// node was forgotten. Keys that are in use are kept unwrapped in locked memory, a
// bounded number, as long as the node's record does not change.
//
// What is guaranteed:
//   - A blob never opens for another node; what a blob opens to was sealed here.
//   - An answer leaves after its record is synced, and a blob leaves after the key
//     it needs is durable and was unwrapped again from what was stored. kill -9 at
//     any point loses nothing that was answered.
//   - A node that is not approved, or no longer, gets nothing, at most [MaxAge]
//     after the change, from any server on the same store: however slow KEK and
//     audit log were, what is decided when the answer leaves counts, and is on record.
//   - Nothing is wrapped by a version of the KEK that another server lacks, and
//     nothing unwrapped by one that was retired anywhere.
//   - Names that somebody makes up take no room from nodes with keys. Of those who
//     wait for approval there is a limit, and one for each source in an hour;
//     [Keeper.PurgePending] makes room.
//   - A forgotten node's keys are destroyed in store and memory; what it sealed
//     opens never again. Wrapped copies in backups are dead when the KEK version
//     that wrapped them is destroyed: [Keeper.Rewrap], then [Keeper.RetireKEK].
//   - A steady Unseal reads the store, calls no KEK, and writes one audit record.
//   - No secret, and nothing computed from one, is in an error or an audit record.
//   - It starts without its store and its KEK, answers [Unavailable] until they are
//     there, and says so in [Keeper.Health]. Only a KEK elsewhere, one that can be
//     probed, is known to be away before a node needs it.
//
// What it does not protect: who asks is what [Request] says; the front proves it.
// The limits of unseals are counted in memory, by each server for itself: a
// restart fills the buckets, and with n servers a node may get n times as much.
// Every request is on record, so someone who may send any number of them fills
// the disk: the front limits sources. Data passes through our memory in the clear.
package keeper
