package mapping

import (
	"fmt"
	"slices"
	"strings"
)

// Flag is an optional argument of dm-crypt, spelled as the kernel and Talos
// machine configurations spell it.
type Flag string

// The flags. All but the first are about speed only.
const (
	AllowDiscards       Flag = "allow_discards" // shows which blocks are unused
	SameCPUCrypt        Flag = "same_cpu_crypt"
	HighPriority        Flag = "high_priority"
	SubmitFromCryptCPUs Flag = "submit_from_crypt_cpus"
	NoReadWorkqueue     Flag = "no_read_workqueue"
	NoWriteWorkqueue    Flag = "no_write_workqueue"
)

// Flags are all flags, in the order in which the kernel shows them.
func Flags() []Flag {
	return []Flag{AllowDiscards, SameCPUCrypt, HighPriority, SubmitFromCryptCPUs, NoReadWorkqueue, NoWriteWorkqueue}
}

// ParseFlag reads a flag in the kernel's spelling or in that of LUKS2 headers,
// "no-read-workqueue".
func ParseFlag(s string) (Flag, error) {
	f := Flag(strings.ReplaceAll(s, "-", "_"))
	if !slices.Contains(Flags(), f) {
		return "", fmt.Errorf("flag %q is not one of %q", s, Flags())
	}
	return f, nil
}

// Configured returns the flags of a machine configuration: its options, which are
// spelt as the kernel spells them, and allowDiscards.
func Configured(options []string, allowDiscards bool) (flags []Flag) {
	for _, o := range options {
		flags = append(flags, Flag(o))
	}
	if allowDiscards {
		flags = append(flags, AllowDiscards)
	}
	return flags
}

// mergeFlags returns a header's persistent flags and those asked for, each
// once, in the kernel's order. What else a header may say (no-journal, and what
// later tools invent) is not for dm-crypt; cryptsetup skips it too.
func mergeFlags(persistent []string, asked []Flag) ([]Flag, error) {
	set := map[Flag]bool{}
	for _, s := range persistent {
		if f, err := ParseFlag(s); err == nil {
			set[f] = true
		}
	}
	for _, s := range asked {
		f, err := ParseFlag(string(s))
		if err != nil {
			return nil, err
		}
		set[f] = true
	}
	return slices.DeleteFunc(Flags(), func(f Flag) bool { return !set[f] }), nil
}

// since is the version of the dm-crypt target that brought a flag (cryptsetup,
// lib/libdevmapper.c, _dm_set_crypt_compat). Older ones are in every kernel that
// still gets fixes.
func (f Flag) since() [3]uint32 {
	switch f {
	case NoReadWorkqueue, NoWriteWorkqueue:
		return [3]uint32{1, 22, 0}
	case HighPriority:
		return [3]uint32{1, 26, 0}
	}
	return [3]uint32{1, 18, 1} // keys from the keyring, Linux 4.11
}

// drop takes out the flags that dm-crypt of this version does not know. They are
// about speed, for which no boot is to fail; cryptsetup leaves them out too.
func (t *Table) drop(version [3]uint32) (dropped []Flag) {
	t.Flags = slices.DeleteFunc(t.Flags, func(f Flag) bool {
		since := f.since()
		old := slices.Compare(version[:], since[:]) < 0
		if old {
			dropped = append(dropped, f)
		}
		return old
	})
	return dropped
}
