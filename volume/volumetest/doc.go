// Package volumetest is a machine for tests of volumes: a [volume.System] made of
// files in one directory, for places without a device-mapper and without root.
//
//	dir/disk/LABEL        a partition: an image, which the code under test reads and writes
//	dir/decrypted/ID      what is behind a mapping: a file for each volume key and UUID
//	dir/mapper/NAME       an open mapping: a symbolic link to it
//	dir/content/ID        the directory of a file system, named by its superblock
//	dir/covered/N         what a mount hides, and where
//
// A mounted file system is its directory, moved to the mount point. Making one
// writes the magic and a new UUID at their real places, so that package probe
// sees it, and the directory of the old one is never found again.
//
// [System.FailAt] makes a call fail, [System.CutBefore] and [System.CutAfter] cut
// the power at one: from there on every call fails with [ErrPowerCut], until
// [System.Reboot] gives the machine anew, with nothing mapped or mounted and all
// contents kept.
//
// What it does not imitate: data is not encrypted, half of a call is never done,
// writes are durable at once, and an image can be opened exclusively twice. What
// the code under test writes itself after a cut is written.
package volumetest
