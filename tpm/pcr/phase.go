package pcr

import (
	"fmt"
	"strings"
	"unicode"
)

// Path is the words that were extended into PCR 11 one after another while a
// system started.
type Path []string

// String returns the words with colons between them, as systemd-measure takes
// them; "" is the path of no word.
func (p Path) String() string { return strings.Join(p, ":") }

// Of systemd (systemd-pcrphase.service(8)) and of Talos, which disks are opened
// under. Both continue with words of later phases.
var (
	systemdWords = Path{"enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final"}
	talosWords   = Path{"enter-initrd", "leave-initrd", "enter-machined", "start-the-world"}
)

// SystemdPaths returns the paths that systemd-measure computes when it is not
// told any: up to enter-initrd, leave-initrd, sysinit and ready.
func SystemdPaths() []Path {
	return []Path{systemdWords[:1:1], systemdWords[:2:2], systemdWords[:3:3], systemdWords[:4:4]}
}

// TalosPath returns the path that Talos signs: it has reached enter-machined
// when it unseals.
func TalosPath() Path { return talosWords[:3:3] }

// ParsePath reads words with colons between them. An empty text is the path of
// no word. An empty word and a character that is not printable are refused:
// they are typing errors that would give a value that no system ever has.
func ParsePath(text string) (Path, error) {
	if text == "" {
		return nil, nil
	}
	words := strings.Split(text, ":")
	for _, word := range words {
		if word == "" {
			return nil, fmt.Errorf("the phase path %q has an empty word", text)
		}
		for _, r := range word {
			if !unicode.IsGraphic(r) || unicode.IsSpace(r) {
				return nil, fmt.Errorf("the phase path %q has a character in it that no phase has", text)
			}
		}
	}
	return words, nil
}

// FindPath returns the phase words of systemd or Talos that lead from one value
// of PCR 11 to another, and whether there are such: none if they are equal.
func (b Bank) FindPath(from, to []byte) (Path, bool) {
	if string(from) == string(to) {
		return nil, true
	}
	for _, words := range []Path{systemdWords, talosWords} {
		value := from
		for i := range words {
			if value = b.ExtendWords(value, words[i]); string(value) == string(to) {
				return words[: i+1 : i+1], true
			}
		}
	}
	return nil, false
}
