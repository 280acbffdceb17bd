package machineconfig_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/siderolabs/talos/pkg/machinery/config/generate"
	"github.com/siderolabs/talos/pkg/machinery/config/machine"
	"github.com/siderolabs/talos/pkg/machinery/constants"

	"github.com/cryptctl/cryptctl/config/patch"
)

// spot is what a patch changes in a text: the lines that went and those that
// came, and the lines in front and behind, of which the start is enough.
type spot struct{ Before, Went, Came, After string }

// between returns the one place at which two texts differ.
func between(old, now string) spot {
	a, b := strings.SplitAfter(old, "\n"), strings.SplitAfter(now, "\n")
	start, end := 0, 0
	for start < min(len(a), len(b)) && a[start] == b[start] {
		start++
	}
	for end < min(len(a), len(b))-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	return spot{a[start-1], strings.Join(a[start:len(a)-end], ""), strings.Join(b[start:len(b)-end], ""), a[len(a)-end]}
}

// TestComments: of the configurations that Talos generates, with all options
// that are commented out, a patch changes the lines that it is about, and no
// other.
func TestComments(t *testing.T) {
	in, err := generate.NewInput("test", "https://cp.test:6443", constants.DefaultKubernetesVersion)
	if err != nil {
		t.Fatal(err)
	}
	c, err := in.Config(machine.TypeControlPlane)
	if err != nil {
		t.Fatal(err)
	}
	data, err := c.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	if strings.Count(text, "# ") < 200 {
		t.Fatalf("the configuration has no comments:\n%s", text)
	}
	// went returns the lines of the text from one up to another.
	went := func(from, to string) string {
		_, rest, ok := strings.Cut(text, from)
		lines, _, found := strings.Cut(rest, to)
		if !ok || !found {
			t.Fatalf("the configuration has no %q or %q", from, to)
		}
		return from + lines
	}
	labels := "    # Configures the node labels for the machine.\n    nodeLabels:\n"
	for _, tt := range []struct {
		name, patch string
		want        spot
	}{
		{"a field behind all options", "machine: {network: {hostname: n1}}", spot{"    # ", "", "    network: {hostname: n1}\n", "# Provides cluster"}},
		{"an option that is commented out", "cluster:\n  proxy:\n    disabled: true\n", spot{"        # disabled: false\n", "", "        disabled: true\n", "    # Scheduler server"}},
		{"a field of a field with options", "machine:\n  features:\n    hostDNS:\n      resolveMemberNames: true\n", spot{"            forwardKubeDNSToHost: true", "", "            resolveMemberNames: true\n", "        \n"}},
		{"a scalar", "machine:\n  kubelet:\n    image: example.com/kubelet:v1\n", spot{
			"    kubelet:\n", went("        image: ghcr.io/siderolabs/kubelet", " #"), "        image: example.com/kubelet:v1", "        defaultRuntimeSeccompProfileEnabled",
		}},
		{"node labels deleted", "machine:\n  nodeLabels:\n    $patch: delete\n", spot{"        #         - kube-system\n", went(labels, "    \n    # # Provides"), "", "    \n"}},
		{"a mapping deleted", "machine:\n  features:\n    hostDNS:\n      $patch: delete\n", spot{
			"            port: 7445", went("        # Configures host DNS", "        \n        # # Configure Talos API"), "", "        \n",
		}},
		{"a field of another document", "apiVersion: v1alpha1\nkind: HostnameConfig\nauto: off\n", spot{"kind: HostnameConfig\n", went("auto: stable", " #"), "auto: off", "\n"}},
		{"an operation", "[{op: add, path: /machine/nodeLabels/a, value: b}]", spot{"        node.kubernetes.io/exclude", "", "        a: b\n", "    \n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from := text
			if strings.HasPrefix(tt.patch, "[") { // which are for one document
				from, _, _ = strings.Cut(text, "---\n")
			}
			for _, eol := range []string{"\n", "\r\n"} {
				with := func(s string) string { return strings.ReplaceAll(s, "\n", eol) }
				out := here(patch.Options{}, with(from), with(tt.patch))
				if out.err != nil {
					t.Fatal(out.err)
				}
				got, want := between(with(from), out.raw), tt.want
				if _, comment, ok := strings.Cut(got.Went, " #"); ok && want.Came != "" { // of the line, which stays
					if !strings.HasSuffix(got.Came, comment) {
						t.Errorf("lost the comment%s", comment)
					}
					got.Went, got.Came = strings.Split(got.Went, " #")[0], strings.Split(got.Came, " #")[0]
				}
				if !strings.HasPrefix(got.Before, with(want.Before)) || !strings.HasPrefix(got.After, with(want.After)) {
					t.Errorf("changed between %q and %q", got.Before, got.After)
				}
				if d := cmp.Diff([]string{with(want.Went), with(want.Came)}, []string{got.Went, got.Came}); d != "" {
					t.Errorf("changed lines (-want +got):\n%s", d)
				}
			}
		})
	}
}
