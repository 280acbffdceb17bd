package probe_test

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/probe"
)

// kinds says as what a type of libblkid may appear among our findings.
func kinds(blkidType string) []string {
	switch blkidType {
	case "crypto_LUKS":
		return []string{"luks1", "luks2", "luks", "luks2-secondary"}
	case "dos":
		return []string{"mbr", "boot-sector"}
	case "PMBR":
		return []string{"mbr"}
	case "gpt":
		return []string{"gpt", "gpt-backup"}
	case "ext2", "ext3", "ext4":
		return []string{"ext"}
	case "vfat":
		return []string{"fat"}
	case "LVM2_member", "LVM1_member":
		return []string{"lvm"}
	case "linux_raid_member":
		return []string{"md"}
	case "BitLocker":
		return []string{"bitlocker"}
	case "zfs_member":
		return []string{"zfs"}
	case "ceph_bluestore":
		return []string{"bluestore"}
	case "swsuspend":
		return []string{"hibernation"}
	case "DM_verity_hash":
		return []string{"dm-verity"}
	case "reiser4":
		return []string{"reiserfs"}
	}
	return []string{blkidType}
}

// ownFindings fails if go-blockdevice had to help out.
func ownFindings(t *testing.T, found []probe.Finding) {
	t.Helper()
	for _, f := range found {
		if strings.Contains(f.Detail, "go-blockdevice") {
			t.Errorf("only go-blockdevice sees %v", f)
		}
	}
}

// judge asks blkid and wipefs what is on the image and fails if they name
// something that is not among the findings. It returns the types they named.
func judge(t *testing.T, image string, found []at) []string {
	t.Helper()
	types := append(blkid(t, image), wipefs(t, image)...)
	for _, blkidType := range types {
		if !slices.ContainsFunc(found, func(f at) bool { return slices.Contains(kinds(blkidType), f.Kind) }) {
			t.Errorf("libblkid sees %s; our findings are %v", blkidType, found)
		}
	}
	return types
}

func blkid(t *testing.T, image string) []string {
	t.Helper()
	path, err := find("blkid")
	if err != nil {
		t.Fatalf("blkid is missing: install the Debian package %s", tools()["blkid"])
	}
	// Exit status 2 is nothing found, 8 an ambivalent result: wipefs lists those.
	out, err := exec.CommandContext(t.Context(), path, "-p", "-o", "export", image).Output()
	if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() != 2 && exit.ExitCode() != 8) {
		t.Fatalf("blkid: %v", err)
	}
	var types []string
	for line := range strings.Lines(string(out)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name == "TYPE" || name == "PTTYPE" {
			types = append(types, value)
		}
	}
	return types
}

func wipefs(t *testing.T, image string) []string {
	t.Helper()
	var list struct {
		Signatures []struct{ Type string }
	}
	out := run(t, "wipefs", "--json", image)
	if len(out) == 0 {
		return nil
	}
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatalf("wipefs: %v\n%s", err, out)
	}
	var types []string
	for _, s := range list.Signatures {
		types = append(types, s.Type)
	}
	return types
}
