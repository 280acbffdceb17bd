// Package secureboot tells from the EFI variables that Linux shows whether
// Secure Boot is on.
//
//	/sys/firmware/efi                      absent: the machine was not started by EFI
//	/sys/firmware/efi/efivars/NAME-GUID    4 bytes of attributes | value
//
// Sources: UEFI Specification 2.10 (3.3 "Globally Defined Variables", 32.3
// "Firmware/OS Secure Boot Policy"); Linux, Documentation/filesystems/efivarfs.rst;
// shim's MokVars.txt.
//
// What it guarantees: absence is told apart from "off", and both from "could not
// be read". What does not look as the specification has it is an error, and
// never "on".
//
// What it does not protect: the answer comes from the running system, which can
// lie. It is for a decision that this system takes about itself, such as whether
// to bind a key to PCR 7 now. What another system or a key depends on has to be
// proven by PCR 7.
package secureboot
