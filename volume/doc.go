// Package volume is one volume's life on a node: from a partition with a label
// to a file system that is mounted, and back.
//
//	Locate ──> Open ──────────────────────────────────> Volume ──Mount──> Reconcile ──Close──> gone
//	label      │ LUKS2: unlock, is it the one? activate   │
//	           │ empty: format, activate, mkfs            └─ Path: the mapping, or the
//	           └ anything else: refused, named, untouched    partition of a plain volume
//
// What it guarantees:
//
//   - Only a partition that is proven empty is formatted, and a file system is
//     made only on a volume that was formatted here and was never mounted: the
//     header says so in a member that nobody can make without the volume key.
//   - A volume that opens is held against its [Identity] before it is mapped,
//     mounted or written.
//   - A plain volume is never taken for an encrypted one, nor the other way.
//   - Refused means untouched: not a byte of the partition is written.
//   - A volume that is mapped or mounted already is taken over as it is.
//
// What it does not protect: a first boot has no Identity to compare with, and
// takes what opens with the configured keys.
package volume
