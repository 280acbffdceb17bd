package meta

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Tag names a value. Talos has room for 32 bits on the disk and uses 8.
type Tag uint8

// The tags of Talos (pkg/machinery/meta/constants.go). Tag 0 ends a list of
// records and names nothing.
const (
	Upgrade                     Tag = 6
	StagedUpgradeImageRef       Tag = 7
	StagedUpgradeInstallOptions Tag = 8
	StateEncryptionConfig       Tag = 9 // see [ParseEncryption]
	MetalNetworkPlatformConfig  Tag = 10
	DownloadURLCode             Tag = 11
	UserReserved1               Tag = 12
	UserReserved2               Tag = 13
	UserReserved3               Tag = 14
	UUIDOverride                Tag = 15 // replaces the hardware's UUID unless it is empty
	UniqueMachineToken          Tag = 16
	DiskImageBootloader         Tag = 17
	StagedWipeSelectors         Tag = 18
)

var tagNames = [...]string{
	Upgrade:                     "Upgrade",
	StagedUpgradeImageRef:       "StagedUpgradeImageRef",
	StagedUpgradeInstallOptions: "StagedUpgradeInstallOptions",
	StateEncryptionConfig:       "StateEncryptionConfig",
	MetalNetworkPlatformConfig:  "MetalNetworkPlatformConfig",
	DownloadURLCode:             "DownloadURLCode",
	UserReserved1:               "UserReserved1",
	UserReserved2:               "UserReserved2",
	UserReserved3:               "UserReserved3",
	UUIDOverride:                "UUIDOverride",
	UniqueMachineToken:          "UniqueMachineToken",
	DiskImageBootloader:         "DiskImageBootloader",
	StagedWipeSelectors:         "StagedWipeSelectors",
}

// String returns the name that Talos has for the tag, or its number as 0x2a.
func (t Tag) String() string {
	if int(t) < len(tagNames) && tagNames[t] != "" {
		return tagNames[t]
	}
	return fmt.Sprintf("0x%02x", uint8(t))
}

// ParseTag reads a tag as a name of Talos in any case, a number or 0x and a hex
// number.
func ParseTag(s string) (Tag, error) {
	if i := slices.IndexFunc(tagNames[:], func(n string) bool { return n != "" && strings.EqualFold(n, s) }); i >= 0 {
		return Tag(i), nil
	}
	digits, hex := strings.CutPrefix(strings.ToLower(s), "0x")
	base := 10
	if hex {
		base = 16
	}
	n, err := strconv.ParseUint(digits, base, 8)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%.40q is not a META tag; write a number from 1 to 255 such as 0x09, or a name such as %s", s, StateEncryptionConfig)
	}
	return Tag(n), nil
}
