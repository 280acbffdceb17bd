package mapping

import (
	"fmt"

	"github.com/cryptctl/cryptctl/luks"
)

// Status says what the mapping of that name is, whoever made it. [ErrNotOpen]
// when there is none.
func Status(name string) (*Mapping, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.status(name)
}

// Find returns the mapping of that name when it is the volume's: [ErrNotOpen]
// when there is none, [ErrNameTaken] when it is of something else. It needs no
// key.
func Find(h *luks.Header, name string) (*Mapping, error) {
	uuid, err := mappingUUID(luks2Prefix, h.UUID(), name)
	if err != nil {
		return nil, err
	}
	return find(uuid, name)
}

// find returns the mapping of that name when it has that UUID.
func find(uuid, name string) (*Mapping, error) {
	m, err := Status(name)
	if err != nil {
		return nil, err
	}
	if m.UUID != uuid {
		return nil, fmt.Errorf("mapping %s: %w, with the UUID %s", name, ErrNameTaken, m.UUID)
	}
	return m, nil
}
