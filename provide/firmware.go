package provide

import (
	"os"
	"strings"
)

// FirmwareUUID is the SMBIOS system UUID as the kernel gives it: lower case, in
// the byte order of SMBIOS 2.6. Empty when it cannot be read, which only root
// can.
func FirmwareUUID() string {
	b, err := os.ReadFile("/sys/class/dmi/id/product_uuid")
	if err != nil {
		return ""
	}
	return strings.ToLower(strings.TrimSpace(string(b)))
}
