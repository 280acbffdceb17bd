// Package mapping gives an unlocked volume, of LUKS2 or LUKS1, to the kernel: it
// makes the dm-crypt device /dev/mapper/NAME, recognises one that is there, and
// closes it.
//
//	luks.Header (checked, in memory) ─┐
//	luks.VolumeKey ───────────────────┼─Activate─> /dev/mapper/NAME ─Close─> gone
//	data device (an open file) ───────┘      │
//	                                         └─ NewTable, pure: what the kernel is told
//
// The table says, in one line (Documentation/admin-guide/device-mapper/dm-crypt.rst):
//
//	0 <sectors> crypt <cipher> <key> <iv offset> <device> <offset> [<n> <options>]
//
// It is made of the header in memory and of nothing that is read again from the
// disk. Names, UUIDs and keys have the form that cryptsetup gives them, so that
// each tool closes what the other opened.
//
// What it guarantees:
//
//   - A header that [luks.Header.Trust] refuses, a key that is not the header's,
//     and a segment that does not lie within the device are refused before the
//     kernel is asked for anything.
//   - The volume key passes through the kernel keyring by default: a logon key in
//     a keyring of one thread, which nobody else can search, taken out again once
//     dm-crypt has its copy. Without the keyring the key stands in the ioctl
//     buffer, which is a [secret.Bytes], and the kernel wipes its copies.
//   - After an error nothing is left behind: no key, no device, no node.
//   - A mapping counts as the volume's only by its device-mapper UUID, its name
//     and the device under it.
//
// What it does not protect: the key is in kernel memory while the mapping is
// open, and root can read a key that was loaded without the keyring. That the
// volume is the one that was meant is to be checked after unlocking.
//
// The device-mapper is driven by its ioctls, written here: github.com/anatol/devmapper.go
// keeps the key in strings that cannot be wiped, does not ask the kernel to wipe
// its copies (DM_SECURE_DATA_FLAG), has no deferred removal, and leaves a device
// behind when the last step fails. The rest of it is as short as this.
package mapping
