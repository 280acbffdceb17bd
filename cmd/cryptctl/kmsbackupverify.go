package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/kms/store/bolt"
)

func kmsBackupVerifyCommand() *cobra.Command {
	var dir string
	var without bool
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a backup, and whether the key-encryption key opens what is in it",
		Long: `Reads a backup where it lies, without a server: whether it is whole, how many nodes it
has, and how many of their keys each version of the key-encryption key wraps. Each
key is tried with the keyset of the directory, or the first one of each version with
Transit. A backup with keys that do not open is an error: what their nodes sealed
would be lost by a restore.`,
		Args: args("FILE"),
	}
	cmd.Flags().StringVar(&dir, "dir", kmsDir, "`DIRECTORY` that kms init made, with the keyset")
	cmd.Flags().BoolVar(&without, "without-keyset", false, "check the file only, where there is no keyset; whether a restore is of use stays unknown")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		var c *kmsConfig
		if !without {
			var err error
			if c, err = readKMSConfig(filepath.Join(dir, kmsConfigName)); err != nil {
				return err
			}
		}
		s, err := surveyBackup(cmd.Context(), c, given[0])
		if err != nil {
			return err
		}
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), s.view())
		} else {
			err = s.write(cmd.OutOrStdout())
		}
		return errors.Join(err, s.lost())
	}
	return cmd
}

// surveyed is a backup that is whole, and what is in it.
type surveyed struct {
	*keeper.Survey
	path  string
	sum   []byte
	tried bool // its keys, with the key-encryption key
}

// surveyBackup reads a backup, and tries its keys if there is a configuration.
func surveyBackup(ctx context.Context, c *kmsConfig, path string) (s surveyed, err error) {
	var w kek.Wrapper
	if c != nil {
		opened, _, free, err := c.KEK.open(ctx)
		if err != nil {
			return s, noKeyset{fmt.Errorf("key-encryption key: %w", err)}
		}
		defer free()
		w = opened
	}
	s = surveyed{Survey: keeper.NewSurvey(w), path: path, tried: w != nil}
	s.sum, err = bolt.ReadBackup(ctx, path, func(i store.Item) error { return s.Take(ctx, i) })
	if err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// noKeyset is that the key-encryption key itself cannot be opened.
type noKeyset struct{ error }

// Unwrap gives the cause.
func (n noKeyset) Unwrap() error { return n.error }

// nodesText names the first few nodes.
func nodesText(nodes []blob.Node) string {
	const most = 5
	text, more := make([]string, 0, most), ""
	for _, n := range nodes[:min(most, len(nodes))] {
		text = append(text, string(n))
	}
	if len(nodes) > most {
		more = fmt.Sprintf(" and %d more", len(nodes)-most)
	}
	return strings.Join(text, ", ") + more
}

// lost says which nodes have keys that the key-encryption key does not open.
func (s surveyed) lost() error {
	nodes := s.Lost()
	if len(nodes) == 0 {
		return nil
	}
	var why []error
	for _, o := range s.Openings() {
		if o.Err != nil {
			why = append(why, fmt.Errorf("%d keys under %s: %w", o.Keys-o.Opened, dash(o.Version), o.Err))
		}
	}
	return fmt.Errorf("%s: keys of %d nodes do not open here, and what these nodes sealed with them is lost unless a keyset that has the version is found: %s: %w",
		s.path, len(nodes), nodesText(nodes), errors.Join(why...))
}

// kmsBackupView is a backup as JSON shows it.
type kmsBackupView struct {
	Records  int                  `json:"records"`
	SHA256   string               `json:"sha256"`
	Nodes    map[policy.State]int `json:"nodes"`
	Keys     int                  `json:"keys"`
	Tried    bool                 `json:"tried"`
	Versions []kmsOpeningView     `json:"versions"`
	Lost     []blob.Node          `json:"lost_nodes"`
}

type kmsOpeningView struct {
	Version string `json:"version"`
	Keys    int    `json:"keys"`
	Tried   int    `json:"tried"`
	Opened  int    `json:"opened"`
	Error   string `json:"error,omitempty"`
}

func (s surveyed) view() kmsBackupView {
	v := kmsBackupView{Records: s.Records, SHA256: fmt.Sprintf("%x", s.sum), Nodes: s.Nodes, Keys: s.Keys, Tried: s.tried, Versions: []kmsOpeningView{}, Lost: s.Lost()}
	if v.Lost == nil {
		v.Lost = []blob.Node{}
	}
	for _, o := range s.Openings() {
		one := kmsOpeningView{Version: o.Version, Keys: o.Keys, Tried: o.Tried, Opened: o.Opened}
		if o.Err != nil {
			one.Error = o.Err.Error()
		}
		v.Versions = append(v.Versions, one)
	}
	return v
}

func (s surveyed) write(out io.Writer) error {
	n, states := 0, make([]string, 0, len(s.Nodes))
	for _, state := range slices.Sorted(maps.Keys(s.Nodes)) {
		n += s.Nodes[state]
		states = append(states, fmt.Sprintf("%s %d", state, s.Nodes[state]))
	}
	fmt.Fprintf(out, "%s: whole, %d records, sha256 %x\nnodes: %d; %s\n", s.path, s.Records, s.sum, n, dash(strings.Join(states, ", ")))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tKEYS\tTRIED\tOPEN")
	for _, o := range s.Openings() {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", dash(o.Version), o.Keys, o.Tried, o.Opened)
	}
	if err := w.Flush(); err != nil || s.tried {
		return err
	}
	_, err := fmt.Fprintln(out, "Whether the keys open was not tried.")
	return err
}
