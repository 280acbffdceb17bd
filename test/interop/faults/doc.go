// Package faults breaks what a running key server stands on, under load: it is
// killed, its disk gets full or read-only, its clients misbehave. The server is a
// process of its own, its clients speak TLS. After each fault every blob that was
// acknowledged opens, every answer is on record, and the record verifies.
//
// The tests mount small file systems, in a mount namespace of their own that ends
// with them: they need root and loop devices, and fail without.
package faults
