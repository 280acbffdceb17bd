package node

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/provide"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/volume"
)

// machine is a machine configuration and the text it was read from.
type machine struct {
	text *secret.Bytes // which has passphrases
	*config.Config
}

// parseMachine reads a configuration: a new one strictly, one that was in force as
// one that may be older or newer than this version.
func parseMachine(name string, text []byte, isNew bool) (*machine, error) {
	read := config.ReadStored
	if isNew {
		read = config.Read
	}
	c, err := read(config.Source{Name: name, Data: text})
	if err != nil {
		return nil, err
	}
	return &machine{secret.Copy(text), c}, nil
}

// wipe wipes the passphrases. It may be called again.
func (m *machine) wipe() {
	m.text.Wipe()
	m.text = nil
	m.Config.Wipe()
}

// encryption returns how a volume is to be encrypted; nil is plain.
func (m *machine) encryption(name string) *config.Encryption {
	for i := range m.Volumes {
		if m.Volumes[i].Volume == name {
			return &m.Volumes[i]
		}
	}
	return nil
}

// names are the volumes beside STATE.
func (m *machine) names() []string {
	set := map[string]bool{ephemeralName: true}
	for _, v := range m.Volumes {
		set[v.Volume] = true
	}
	for _, d := range m.Declared {
		set[d.Volume] = true
	}
	delete(set, stateName)
	return slices.Sorted(maps.Keys(set))
}

func (m *machine) filesystem(name string) string {
	for _, d := range m.Declared {
		if d.Volume == name {
			return d.Filesystem // its values are those of package volume
		}
	}
	switch {
	case strings.HasPrefix(name, "r-"):
		return volume.None
	case strings.HasPrefix(name, "s-"):
		return volume.Swap
	}
	return volume.Auto
}

// mountOrder sorts volumes so that those come first on whose directories others
// are mounted; reverse for closing.
func mountOrder(volumes map[string]*volume.Volume, reverse bool) []string {
	names := slices.Sorted(maps.Keys(volumes))
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(rank(a), rank(b))
	})
	if reverse {
		slices.Reverse(names)
	}
	return names
}

func rank(name string) int {
	if name == ephemeralName {
		return 0
	}
	return 1
}

// encryptionOf turns a configured encryption into one of package volume. Former
// are other configurations of the same volume, which depend on the same.
func encryptionOf(m provide.Machine, e *config.Encryption, former ...*config.Encryption) *volume.Encryption {
	if e == nil {
		return nil
	}
	out := &volume.Encryption{
		Keys: m.Keys(e.Keys), Cipher: e.Cipher, KeySize: e.KeySize, SectorSize: e.BlockSize,
		Flags: mapping.Configured(e.Options, e.AllowDiscards),
	}
	for _, f := range former {
		addFormer(out, m, f)
	}
	return out
}

// addFormer adds the keys of a former configuration, if there are any.
func addFormer(to *volume.Encryption, m provide.Machine, former *config.Encryption) {
	if to != nil && former != nil && len(former.Keys) > 0 {
		to.Former = append(to.Former, m.Keys(former.Keys))
	}
}
