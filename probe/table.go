package probe

import "bytes"

// signature is bytes that a format puts at a fixed place.
type signature struct {
	kind   string
	at     int64  // where; negative: before the end of the area
	align  int64  // for the latter, the end is first rounded down to a multiple of it
	magic  string // what
	detail string
}

// offset returns where the signature would be on an area of that size; negative
// if the area is too small to have it.
func (s signature) offset(size int64) int64 {
	if s.at >= 0 {
		return s.at
	}
	return size/s.align*s.align + s.at
}

// inTable looks for every row of the table.
func inTable(v *view) ([]Finding, error) {
	var found []Finding
	for _, s := range table() {
		at := s.offset(v.size)
		b, err := v.at(at, int64(len(s.magic)))
		if err != nil {
			return nil, err
		}
		if b != nil && bytes.Equal(b, []byte(s.magic)) {
			found = append(found, Finding{s.kind, at, s.detail})
		}
	}
	return found, nil
}

// table returns all rows. Places and bytes are those of libblkid
// (util-linux/libblkid/src), except where a comment names another source. Two
// bytes are enough here: whatever matches is not zero, so the area is not empty
// under any name.
func table() []signature {
	var all []signature
	for _, part := range [][]signature{
		encrypted(), partitionTables(), windows(), linuxFilesystems(), otherFilesystems(), members(), swaps(), talos(),
	} {
		all = append(all, part...)
	}
	return all
}

// encrypted has what keeps a key somewhere else or at a second place. The
// primary LUKS header is in odd.go.
func encrypted() []signature {
	rows := []signature{
		{"bitlocker", 3, 0, "-FVE-FS-", "a BitLocker volume"},
		{"bitlocker", 0, 0, "\xeb\x58\x90MSWIN4.1", "a BitLocker To Go or FAT volume"},
		{"dm-verity", 0, 0, "verity\x00\x00", "a dm-verity hash tree"},
		{"dm-integrity", 0, 0, "integrt\x00", "a dm-integrity superblock"}, // linux/drivers/md/dm-integrity.c
	}
	// LUKS2 on-disk format, section 2.1: the places where a secondary header may be.
	for at := int64(0x4000); at <= 0x400000; at *= 2 {
		rows = append(rows, signature{KindLUKS2Secondary, at, 0, "SKUL\xba\xbe", "a secondary LUKS2 header"})
	}
	return rows
}

func partitionTables() []signature {
	return []signature{
		{KindGPT, 512, 0, "EFI PART", "a GPT header"},
		{KindGPT, 4096, 0, "EFI PART", "a GPT header for 4096-byte sectors"},
		{KindGPTBackup, -512, 512, "EFI PART", "a backup GPT header"},
		{KindGPTBackup, -4096, 4096, "EFI PART", "a backup GPT header for 4096-byte sectors"},
		{"apple-partition-map", 512, 0, "PM\x00\x00", "an Apple partition map"},
		{"bsd-disklabel", 512, 0, "\x57\x45\x56\x82", "a BSD disk label"},
		{"sgi-disklabel", 0, 0, "\x0b\xe5\xa9\x41", "an SGI volume header"},
		{"sun-disklabel", 508, 0, "\xda\xbe", "a Sun disk label"},
		{"ldm", 3072, 0, "PRIVHEAD", "a Windows dynamic disk"},
	}
}

func windows() []signature {
	return []signature{
		{"ntfs", 3, 0, "NTFS    ", "an NTFS boot sector"},
		{"ntfs", -512 + 3, 512, "NTFS    ", "the backup of an NTFS boot sector"},
		{"exfat", 3, 0, "EXFAT   ", "an exFAT boot sector"},
		{"exfat", 12*512 + 3, 0, "EXFAT   ", "the backup of an exFAT boot sector"},
		{"exfat", 12*4096 + 3, 0, "EXFAT   ", "the backup of an exFAT boot sector"},
		{"fat", 0x36, 0, "FAT12   ", "a FAT12 file system"},
		{"fat", 0x36, 0, "FAT16   ", "a FAT16 file system"},
		{"fat", 0x36, 0, "FAT     ", "a FAT file system"},
		{"fat", 0x36, 0, "MSDOS", "a FAT file system"},
		{"fat", 0x52, 0, "FAT32   ", "a FAT32 file system"},
		{"fat", 0x52, 0, "MSWIN", "a FAT32 file system"},
		{"fat", 6*512 + 0x52, 0, "FAT32   ", "the backup of a FAT32 boot sector"},
		{"refs", 0, 0, "\x00\x00\x00ReFS\x00", "a ReFS file system"},
		{"hpfs", 0x2000, 0, "\x49\xe8\x95\xf9", "an HPFS file system"},
	}
}

func linuxFilesystems() []signature {
	const ext = "an ext2, ext3 or ext4 superblock"
	const extCopy = "the backup of an ext2, ext3 or ext4 superblock"
	return []signature{
		{"ext", 0x438, 0, "\x53\xef", ext},
		// The copy in block group 1, for blocks of 1, 2 and 4 KiB (mke2fs defaults).
		{"ext", 8193*1024 + 0x38, 0, "\x53\xef", extCopy},
		{"ext", 16384*2048 + 0x38, 0, "\x53\xef", extCopy},
		{"ext", 32768*4096 + 0x38, 0, "\x53\xef", extCopy},
		{"xfs", 0, 0, "XFSB", "an XFS superblock"},
		{"btrfs", 64<<10 + 0x40, 0, "_BHRfS_M", "a Btrfs superblock"},
		{"btrfs", 64<<20 + 0x40, 0, "_BHRfS_M", "the first copy of a Btrfs superblock"},
		{"btrfs", 256<<30 + 0x40, 0, "_BHRfS_M", "the second copy of a Btrfs superblock"},
		{"f2fs", 0x400, 0, "\x10\x20\xf5\xf2", "an F2FS superblock"},
		{"f2fs", 0x1400, 0, "\x10\x20\xf5\xf2", "the copy of an F2FS superblock"},
		{"jfs", 0x8000, 0, "JFS1", "a JFS superblock"},
		{"jfs", 0xf000, 0, "JFS1", "the copy of a JFS superblock"}, // linux/fs/jfs/jfs_filsys.h, SUPER2_OFF
		{"reiserfs", 64<<10 + 0x34, 0, "ReIsErFs", "a ReiserFS superblock"},
		{"reiserfs", 64<<10 + 0x34, 0, "ReIsEr2Fs", "a ReiserFS superblock"},
		{"reiserfs", 64<<10 + 0x34, 0, "ReIsEr3Fs", "a ReiserFS superblock"},
		{"reiserfs", 8<<10 + 0x34, 0, "ReIsErFs", "a ReiserFS superblock"},
		{"reiserfs", 8<<10 + 20, 0, "ReIsErFs", "a ReiserFS superblock"},
		{"reiserfs", 64 << 10, 0, "ReIsEr4", "a Reiser4 superblock"},
		{"nilfs2", 0x400, 0, "\x02\x00\x00\x00\x00\x00\x34\x34", "a NILFS2 superblock"},
		{"nilfs2", -4096, 512, "\x02\x00\x00\x00\x00\x00\x34\x34", "the copy of a NILFS2 superblock"},
		{"minix", 0x410, 0, "\x7f\x13", "a Minix superblock"},
		{"minix", 0x410, 0, "\x8f\x13", "a Minix superblock"},
		{"minix", 0x410, 0, "\x68\x24", "a Minix superblock"},
		{"minix", 0x410, 0, "\x78\x24", "a Minix superblock"},
		{"minix", 0x418, 0, "\x5a\x4d", "a Minix superblock"},
		{"bcachefs", 0x1018, 0, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", "a bcachefs superblock"},
		{"gfs2", 0x10000, 0, "\x01\x16\x19\x70", "a GFS or GFS2 superblock"},
		{"ocfs2", 1 << 10, 0, "OCFSV2", "an OCFS2 superblock"},
		{"ocfs2", 2 << 10, 0, "OCFSV2", "an OCFS2 superblock"},
		{"ocfs2", 4 << 10, 0, "OCFSV2", "an OCFS2 superblock"},
		{"ocfs2", 8 << 10, 0, "OCFSV2", "an OCFS2 superblock"},
		{"squashfs", 0, 0, "hsqs", "a SquashFS image"},
		{"squashfs", 0, 0, "sqsh", "a big-endian SquashFS image"},
		{"erofs", 0x400, 0, "\xe2\xe1\xf5\xe0", "an EROFS superblock"},
		{"cramfs", 0, 0, "\x45\x3d\xcd\x28", "a cramfs image"},
		{"cramfs", 0, 0, "\x28\xcd\x3d\x45", "a big-endian cramfs image"},
		{"romfs", 0, 0, "-rom1fs-", "a romfs image"},
		{"ubi", 0, 0, "UBI#", "a UBI volume"},
		{"ubifs", 0, 0, "\x31\x18\x10\x06", "a UBIFS file system"},
	}
}

func otherFilesystems() []signature {
	return []signature{
		{"iso9660", 0x8001, 0, "CD001", "an ISO 9660 file system"},
		{"iso9660", 0x8009, 0, "CDROM", "a High Sierra file system"},
		// ECMA-167, 2/8.3.1: volume structure descriptors, one each 2 KiB or per block of 4 KiB.
		{"udf", 0x8001, 0, "BEA01", "a UDF file system"},
		{"udf", 0x8801, 0, "NSR02", "a UDF file system"},
		{"udf", 0x8801, 0, "NSR03", "a UDF file system"},
		{"udf", 0x9001, 0, "NSR02", "a UDF file system"},
		{"udf", 0x9001, 0, "NSR03", "a UDF file system"},
		{"hfs", 0x400, 0, "BD", "an HFS file system"},
		{"hfs", -1024, 512, "BD", "the copy of an HFS volume header"},
		{"hfsplus", 0x400, 0, "H+", "an HFS+ file system"},
		{"hfsplus", 0x400, 0, "HX", "an HFSX file system"},
		{"hfsplus", -1024, 512, "H+", "the copy of an HFS+ volume header"},
		{"hfsplus", -1024, 512, "HX", "the copy of an HFSX volume header"},
		{"apfs", 32, 0, "NXSB", "an APFS container"},
		{"vmfs", 1 << 20, 0, "\x0d\xd0\x01\xc0", "a VMFS volume member"},
		{"vmfs", 2 << 20, 0, "\x5e\xf1\xab\x2f", "a VMFS file system"},
		{"qcow2", 0, 0, "QFI\xfb", "a qcow2 disk image, which is not a raw one"},
	}
}

// members has devices that are part of something larger.
func members() []signature {
	return []signature{
		{"lvm", 0, 0, "LABELONE", "an LVM label"},
		{"lvm", 512, 0, "LABELONE", "an LVM label"},
		{"lvm", 1024, 0, "LABELONE", "an LVM label"},
		{"lvm", 1536, 0, "LABELONE", "an LVM label"},
		{"lvm", 0x18, 0, "LVM2 001", "an LVM label"},
		{"lvm", 0x218, 0, "LVM2 001", "an LVM label"},
		{"lvm", 0x418, 0, "LVM2 001", "an LVM label"},
		{"lvm", 0x618, 0, "LVM2 001", "an LVM label"},
		{"lvm", 0, 0, "HM\x01\x00", "an LVM1 label"},
		{"lvm", 0, 0, "HM\x02\x00", "an LVM1 label"},
		{"dm-snapshot", 0, 0, "SnAp", "a device-mapper snapshot"},
		{"md", 0, 0, "\xfc\x4e\x2b\xa9", "an MD RAID superblock, version 1.1"},
		{"md", 4096, 0, "\xfc\x4e\x2b\xa9", "an MD RAID superblock, version 1.2"},
		{"md", -8192, 4096, "\xfc\x4e\x2b\xa9", "an MD RAID superblock, version 1.0"},
		{"md", -64 << 10, 64 << 10, "\xfc\x4e\x2b\xa9", "an MD RAID superblock, version 0.90"},
		{"md", -64 << 10, 64 << 10, "\xa9\x2b\x4e\xfc", "a big-endian MD RAID superblock, version 0.90"},
		{"isw-raid", -1024, 512, "Intel Raid ISM Cfg Sig. ", "an Intel Matrix RAID superblock"},
		{"ddf-raid", -512, 512, "\xde\x11\xde\x11", "a DDF RAID anchor"},
		{"ddf-raid", -512, 512, "\x11\xde\x11\xde", "a little-endian DDF RAID anchor"},
		{"bcache", 0x1018, 0, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "a bcache superblock"},
		{"bluestore", 0, 0, "bluestore block device", "a Ceph BlueStore device"},
		{"vdo", 0, 0, "dmvdo001", "a VDO volume"},
		{"stratis", 0x204, 0, "!Stra0tis\x86\xff\x02^\x41rh", "a Stratis pool member"},
		{"stratis", 0x1204, 0, "!Stra0tis\x86\xff\x02^\x41rh", "the copy of a Stratis superblock"},
		{"oracleasm", 32, 0, "ORCLDISK", "an Oracle ASM disk"},
		{"drbd", -4096 + 60, 512, "\x83\x74\x02\x6b", "DRBD 8 metadata"},
		{"drbd", -4096 + 60, 512, "\x83\x74\x02\x6c", "DRBD 8.4 metadata"},
		{"drbd", -4096 + 60, 512, "\x83\x74\x02\x6d", "DRBD 9 metadata"},
	}
}

// swaps has swap areas and hibernated systems, which keep their mark at the end
// of the first page, whatever size a page has.
func swaps() []signature {
	const tuxOnIce = "\xed\xc3\x02\xe9\x98\x56\xe5\x0c"
	rows := []signature{{"hibernation", 0, 0, tuxOnIce, "a system hibernated by TuxOnIce"}}
	for page := int64(4 << 10); page <= 64<<10; page *= 2 {
		for _, magic := range []string{"SWAP-SPACE", "SWAPSPACE2"} {
			rows = append(rows, signature{"swap", page - 10, 0, magic, "a swap area"})
		}
		for _, magic := range []string{"S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"} {
			rows = append(rows, signature{"hibernation", page - 10, 0, magic, "a hibernated system in a swap area"})
		}
	}
	return rows
}

// talos has both copies of the META store and both of the syslinux one behind
// it, each by its first and its last word (go-adv, adv/talos and adv/syslinux).
func talos() []signature {
	const copySize = 256 << 10
	return []signature{
		{KindMeta, 0, 0, "\x5a\x4b\x3c\x2d", "a Talos META store"},
		{KindMeta, copySize - 4, 0, "\xa5\xb4\xc3\xd2", "the end of a Talos META store"},
		{KindMeta, copySize, 0, "\x5a\x4b\x3c\x2d", "the second copy of a Talos META store"},
		{KindMeta, 2*copySize - 4, 0, "\xa5\xb4\xc3\xd2", "the end of the second copy of a Talos META store"},
		{"syslinux-adv", -1024, 512, "\xa5\x2f\x2d\x5a", "a syslinux auxiliary data vector"},
		{"syslinux-adv", -512, 512, "\xa5\x2f\x2d\x5a", "the copy of a syslinux auxiliary data vector"},
		{"syslinux-adv", -512 - 4, 512, "\x64\xbf\x28\xdd", "the end of a syslinux auxiliary data vector"},
		{"syslinux-adv", -4, 512, "\x64\xbf\x28\xdd", "the end of the copy of a syslinux auxiliary data vector"},
	}
}
