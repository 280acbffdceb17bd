// Package vm tests what needs a kernel: real dm-crypt, real file systems, boots
// and power cuts, in virtual machines (package machine) that a guest program
// (command guest) serves.
//
// The tests have the build tag vm: `make test-vm` runs them. What they need of
// Debian is in packages.txt; a missing part fails them, nothing is skipped.
//
// Secure Boot is tested with the firmware OVMF and the software TPM swtpm: images
// are made, measured and signed here, and whoever tampers with one, with the
// firmware's settings or with the TPM is a variant of the same node.
//
// Key servers are processes on the host, and the destinations of logs are there, too. A
// machine's network has nothing but it, and the way between them can be cut, refused or
// made to swallow what is said.
//
// A test is written on the host and reads from top to bottom: it boots a
// machine, asks for acts in it, and looks at the disks from outside. Scenarios
// that can share a boot are subtests of one test.
//
// Nodes are machines whose process 1 is examples/noded, with the guest program as
// its child. Their power cuts are of two kinds: machines that are killed, and
// disks made from a recording of all writes, as a cut at any of them would have
// left them; many such disks are booted in one machine.
package vm
