package config_test

import (
	"testing"

	"github.com/cryptctl/cryptctl/config"
)

// TestMisplaced: what would silently leave a volume unencrypted is refused.
func TestMisplaced(t *testing.T) {
	t.Parallel()
	for _, tt := range []mistake{
		{"guide", "machine:\n  type: worker\n  state:\n    keys:\n      - nodeID: {}\n        slot: 1\n  ephemeral:\n    keys: []\n", "" +
			"f:3: machine.state: is not read here, and would leave the volume unencrypted; move it into machine.systemDiskEncryption\n" +
			"f:7: machine.ephemeral: is not read here, and would leave the volume unencrypted; move it into machine.systemDiskEncryption"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := config.Read(config.Source{Name: "f", Data: []byte(tt.text)})
			if err == nil || err.Error() != tt.want {
				t.Errorf("error\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
	if _, err := config.Read(config.Source{Name: "f", Data: []byte("machine:\n  state: {a: 1}\n")}); err != nil {
		t.Errorf("a field of this name without keys: %v", err)
	}
}
