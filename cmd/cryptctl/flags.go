package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/node"
)

// slotFlag adds --slot, with a value for none that the help does not show.
func slotFlag(cmd *cobra.Command, slot *int, none int, usage string) {
	numberFlag(cmd, "slot", slot, none, usage)
}

// numberFlag adds a flag for the number of a slot or token.
func numberFlag(cmd *cobra.Command, name string, n *int, none int, usage string) {
	cmd.Flags().IntVar(n, name, none, usage)
	cmd.Flags().Lookup(name).DefValue = "0" // which is not shown
}

// configFlag adds --file for a command that takes one machine configuration.
func configFlag(cmd *cobra.Command, file *string, usage string) {
	cmd.Flags().VarP(&single{value: file}, "file", "f", usage)
}

// single is a flag that can be given once.
type single struct {
	value *string
	given bool
}

func (s *single) String() string { return *s.value }
func (s *single) Type() string   { return "string" }

func (s *single) Set(value string) error {
	if s.given {
		return errors.New("one file was given already, and only one is taken")
	}
	*s.value, s.given = value, true
	return nil
}

// modeFlag adds --mode, which takes no other mode than those of a node.
func modeFlag(cmd *cobra.Command, mode *string) {
	*mode = string(node.Auto)
	cmd.Flags().VarP((*modeValue)(mode), "mode", "m", "`MODE`: auto, no-reboot, staged or try")
}

type modeValue string

func (m *modeValue) String() string { return string(*m) }
func (m *modeValue) Type() string   { return "string" }

func (m *modeValue) Set(value string) error {
	if !slices.Contains([]node.Mode{node.Auto, node.NoReboot, node.Staged, node.Try}, node.Mode(value)) {
		return fmt.Errorf("must be %s, %s, %s or %s", node.Auto, node.NoReboot, node.Staged, node.Try)
	}
	*m = modeValue(value)
	return nil
}
