package machine

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Firmware starts a machine by UEFI firmware from an EFI system partition, in
// place of QEMU's own loader. The firmware measures what it starts into the TPM.
//
//	OVMF ──verifies, measures──> \EFI\BOOT\BOOTX64.EFI (an image, see [UKI]) ──> kernel
//
// The variables are those of Debian's package ovmf at every start: what a boot
// writes there is gone with the machine.
type Firmware struct {
	// ESP is the partition, a file that [WriteESP] wrote. The guest sees no disk of
	// it.
	ESP string
	// Insecure leaves Secure Boot off: no platform key is enrolled.
	Insecure bool
}

// Files of Debian's package ovmf. The firmware keeps its variables behind system
// management mode, so that a kernel cannot change them: nothing less counts as
// Secure Boot.
const (
	firmwareCode  = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	firmwareBlank = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	firmwareKeys  = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd" // PK, KEK and db are one key, see signingKey
)

// args are QEMU's arguments for the firmware. The partition is on the chipset's
// SATA controller, for which the kernels here have no driver, so the disks keep
// their names.
func (f *Firmware) args() []string {
	vars := firmwareKeys
	if f.Insecure {
		vars = firmwareBlank
	}
	return []string{
		"-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + firmwareCode,
		"-drive", "if=pflash,unit=1,format=raw,snapshot=on,file=" + vars,
		"-drive", "if=none,id=esp,format=raw,snapshot=on,file=" + f.ESP,
		"-device", "ide-hd,drive=esp,bus=ide.0,bootindex=0",
	}
}

// WriteESP makes an EFI system partition whose default image is this one.
func WriteESP(path, image string) error {
	info, err := os.Stat(image)
	if err != nil {
		return err
	}
	const unit, spare, least = 1 << 20, 4 << 20, 34 << 20 // FAT32 has no fewer clusters
	size := max(info.Size()+spare, least) / unit * unit
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(path, size); err != nil {
		return err
	}
	for _, argv := range [][]string{
		{"mkfs.vfat", "-F", "32", path},
		{"mmd", "-i", path, "::EFI", "::EFI/BOOT"},
		{"mcopy", "-i", path, image, "::EFI/BOOT/BOOTX64.EFI"},
	} {
		if err := runTool("", argv...); err != nil {
			return err
		}
	}
	return nil
}

// runTool runs an installed program with an input.
func runTool(stdin string, argv ...string) error {
	program, err := FindProgram(argv[0])
	if err != nil {
		return err
	}
	cmd := exec.Command(program, argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, out)
	}
	return nil
}
