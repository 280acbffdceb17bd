// Package interop holds no code but a small client (refclient) and what runs our
// key server as a process (served): its tests let tools and libraries that nobody
// here wrote judge what this project writes, and the project what they write.
//
//	cryptsetup                         the reference for LUKS2 headers
//	github.com/anatol/luks.go          another reader of the format
//	go-blockdevice's encryption/luks   what Talos Linux runs
//	systemd-measure                    what a unified kernel image makes of PCR 11
//	github.com/siderolabs/kms-client   the reference server and client of Talos' KMS
//	github.com/siderolabs/talos/pkg/machinery   Talos' configurations and patches (machineconfig)
//
// It is a module of its own so that none of them becomes a dependency of the
// project. packages.txt lists the Debian packages that it needs; a missing one
// is a failure, never a skip. Nothing here needs root or device-mapper, but for the
// disks that are filled under the key server (faults), which are mounted.
package interop
