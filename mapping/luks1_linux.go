package mapping

import (
	"errors"
	"fmt"
	"os"

	"github.com/cryptctl/cryptctl/luks1"
)

// ActivateLUKS1 maps a LUKS1 volume as [Activate] does one of LUKS2: with the
// name and the table that cryptsetup gives it, which has the key in it, so that
// root can read it while the volume is open.
func ActivateLUKS1(h *luks1.Header, key *luks1.Key, device *os.File, opts Options) (*Mapping, error) {
	m, err := activateLUKS1(h, key, device, opts)
	if err != nil {
		return nil, fmt.Errorf("map %s as %s: %w", device.Name(), opts.Name, err)
	}
	return m, nil
}

func activateLUKS1(h *luks1.Header, key *luks1.Key, device *os.File, opts Options) (*Mapping, error) {
	dev, err := inspect(device)
	if err != nil {
		return nil, err
	}
	t, err := NewTableLUKS1(h, dev, opts)
	if err != nil {
		return nil, err
	}
	uuid, err := mappingUUID(luks1Prefix, h.UUID(), opts.Name)
	if err != nil {
		return nil, err
	}
	if !h.Confirmed(key) { // it would map noise
		return nil, errors.New("this is not the key of the volume")
	}
	if err := checkOverlapLUKS1(h, device, dev.Size); err != nil {
		return nil, err
	}
	a := &activation{name: opts.Name, uuid: uuid, table: t, readOnly: opts.ReadOnly || dev.ReadOnly}
	return a.open(device, dev.Number, key.Bytes())
}

// FindLUKS1 returns the mapping of that name when it is the volume's, as [Find]
// does.
func FindLUKS1(h *luks1.Header, name string) (*Mapping, error) {
	uuid, err := mappingUUID(luks1Prefix, h.UUID(), name)
	if err != nil {
		return nil, err
	}
	return find(uuid, name)
}
