package probe_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/probe"
	"github.com/cryptctl/cryptctl/probe/marker"
)

const uuid = "2f8a6b1c-0d4e-4f5a-9b7c-3e1d2c4b5a69"

// TestEmpty: a note is excused only where it was believed.
func TestEmpty(t *testing.T) {
	note, other := probe.Finding{Kind: probe.KindMarker}, probe.Finding{Kind: probe.KindData}
	tests := []struct {
		name   string
		report probe.Report
		want   bool
	}{
		{"nothing", probe.Report{}, true},
		{"data", probe.Report{Findings: []probe.Finding{other}}, false},
		{"believed note", probe.Report{Findings: []probe.Finding{note}, Interrupted: true}, true},
		{"note not believed", probe.Report{Findings: []probe.Finding{note}}, false},
		{"believed note and data", probe.Report{Findings: []probe.Finding{note, other}, Interrupted: true}, false},
	}
	for _, test := range tests {
		if got := test.report.Empty(); got != test.want {
			t.Errorf("%s: empty is %v", test.name, got)
		}
	}
}

// TestInterrupted: what an unfinished format wrote below its reach is no
// obstacle; all else is.
func TestInterrupted(t *testing.T) {
	const reach, size = 16 * mib, 1 << 30
	note := func(reach int64) piece {
		return piece{0, string(marker.Marker{UUID: uuid, Reach: reach}.Encode())}
	}
	half := note(reach)
	half.data = half.data[:256]
	tests := []struct {
		name        string
		size        int64
		pieces      []piece
		want        []at
		interrupted bool
		empty       bool
	}{
		{"note alone", size, []piece{note(reach)}, []at{{"cryptctl-format", 0}}, true, true},
		{"note and what it covers", size, []piece{note(reach), {0x4000, "SKUL\xba\xbe"}, {reach - 1, "x"}}, []at{{"cryptctl-format", 0}}, true, true},
		{"the byte at the reach", size, []piece{note(reach), {reach, "x"}}, []at{{"cryptctl-format", 0}, {"data", reach}}, true, false},
		{"a signature beyond the reach", size, []piece{note(reach), {64*mib + 0x40, "_BHRfS_M"}}, []at{{"cryptctl-format", 0}, {"btrfs", 64*mib + 0x40}}, true, false},
		{"a signature across the reach", size, []piece{note(64*mib + 0x44), {64*mib + 0x40, "_BHRfS_M"}}, []at{{"cryptctl-format", 0}, {"data", 64*mib + 0x44}}, true, false},
		{"a backup table at the end", size, []piece{note(reach), {size - 512, "EFI PART"}}, []at{{"cryptctl-format", 0}, {"gpt-backup", size - 512}}, true, false},
		{"4 MiB beyond the reach", size, []piece{note(reach), {reach + 4*mib - 1, "x"}}, []at{{"cryptctl-format", 0}, {"data", reach + 4*mib - 1}}, true, false},
		{"small reach", size, []piece{note(4096), {0x4000, "SKUL\xba\xbe"}}, []at{{"cryptctl-format", 0}, {"luks2-secondary", 0x4000}}, true, false},
		{"reach to the end", reach, []piece{note(reach), {reach - 1, "x"}}, []at{{"cryptctl-format", 0}}, true, true},
		{"reach to the end, over a signature there", reach, []piece{note(reach), {reach - 512, "EFI PART"}}, []at{{"cryptctl-format", 0}}, true, true},
		{"reach into the tail", reach, []piece{note(reach - mib), {reach - mib - 8, "x"}, {reach - 512, "EFI PART"}}, []at{{"cryptctl-format", 0}, {"gpt-backup", reach - 512}}, true, false},
		{"reach past the end", reach - 1, []piece{note(reach)}, []at{{"cryptctl-format", 0}, {"data", 0}}, false, false},
		{"largest reach", size, []piece{note(marker.MaxReach), {marker.MaxReach - 1, "x"}}, []at{{"cryptctl-format", 0}}, true, true},
		{"reach too large", size, []piece{note(marker.MaxReach + 1)}, []at{{"cryptctl-format", 0}, {"data", 0}}, false, false},
		{"half a note", size, []piece{half}, []at{{"data", 0}}, false, false},
		{"note not at the start", size, []piece{{4096, note(reach).data}}, []at{{"data", 4096}}, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := &sparse{size: test.size, pieces: test.pieces}
			r := mustProbe(t, a)
			if diff := cmp.Diff(test.want, places(r.Findings)); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			if r.Interrupted != test.interrupted || r.Empty() != test.empty {
				t.Errorf("interrupted %v, empty %v; want %v, %v", r.Interrupted, r.Empty(), test.interrupted, test.empty)
			}
			if (r.UUID == uuid) != test.interrupted {
				t.Errorf("UUID %q", r.UUID)
			}
			if limit := int64(20*mib + 64<<10); test.size == size && r.Read > limit {
				t.Errorf("read %d, limit %d", r.Read, limit)
			}
			found, err := probe.Signatures(a)
			var want []at
			for _, w := range test.want {
				if w.Kind != "data" {
					want = append(want, w)
				}
			}
			if diff := cmp.Diff(want, places(found)); err != nil || diff != "" {
				t.Errorf("signatures: %v (-want +got):\n%s", err, diff)
			}
		})
	}
}
