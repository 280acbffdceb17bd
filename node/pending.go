package node

import (
	"fmt"
	"slices"

	"github.com/cryptctl/cryptctl/config"
)

// pending shows what the volumes have not got of the configuration that the next
// boot has. What is on trial is none of it.
func (n *Node) pending() {
	next, err := n.files().config(n.read)
	if err != nil {
		n.notice("what is staged for the next boot is not known: %v", err)
	}
	if err != nil || next == nil {
		next = n.base()
	}
	texts := map[string][]string{}
	for _, d := range n.diff(n.base(), next) {
		texts[d.Volume] = append(texts[d.Volume], pendingText(d.What, d.staged().When))
	}
	for _, name := range n.open() {
		if text := n.unlike(name, next); text != "" && texts[name] == nil {
			texts[name] = []string{text}
		}
	}
	n.view.pending(texts)
}

// unlike says how an open volume is not one of a configuration's, or has not its
// keys; "" when it is, and has.
func (n *Node) unlike(name string, next *machine) string {
	want := next.encryption(name)
	switch {
	case name != stateName && !slices.Contains(next.names(), name):
		return pendingText(undeclared, NextBoot)
	case (n.volumeOf(name).Spec.Encryption != nil) != (want != nil):
		return pendingText(encryptedText(want), Wipe)
	case n.waiting[name] != "":
		return pendingText("keys: "+n.waiting[name], NextBoot)
	}
	return ""
}

func pendingText(what string, when When) string { return fmt.Sprintf("%s (%s)", what, when) }

func encryptedText(e *config.Encryption) string {
	if e == nil {
		return "to be plain"
	}
	return "to be encrypted"
}

// pending replaces what is shown as pending of all volumes. One that nothing else is
// known of is shown as staged.
func (v *view) pending(texts map[string][]string) {
	for name, text := range texts {
		v.volume(name, func(s *VolumeStatus) {
			if s.Pending = text; s.Phase == "" {
				s.Phase = VolumeStaged
			}
		})
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, s := range v.byName {
		if texts[name] != nil {
			continue
		}
		if s.Pending = nil; s.Phase == VolumeStaged {
			delete(v.byName, name)
		}
	}
}
