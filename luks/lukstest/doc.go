// Package lukstest is a disk in memory that remembers what was written to it,
// shows every image that a power cut could have left, and fails on demand: for
// tests of whoever writes to a [github.com/cryptctl/cryptctl/luks.Device].
//
//	Disk ──Clone──> run the flow on it ──Crashes──> each image, with a text that says what was cut
//	  └──Fail──> run the flow: its n-th write or sync goes wrong
//
// The model of a power cut:
//
//   - What was written before the last sync that succeeded is there.
//   - Of what was written since, any part may be there, in any order: whole
//     writes are missing, others reached the disk in part.
//   - A sector of 512 bytes is written whole or not at all.
//
// Shown are all prefixes of the writes in their order, cut after each sector;
// within each write also some sets of sectors that are no prefix; and between
// two syncs the combinations of writes that arrived, some of them torn. What is
// sampled is the same in every run.
//
// What it does not show: sectors that come back with neither the old nor the new
// bytes, and a disk that reports a sync and loses what was synced. For single
// writes, [Fault] with Silent is such a disk.
package lukstest
