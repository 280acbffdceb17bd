package server_test

import "testing"

// TestMetricsOfParts: what an unseal costs beside the answer can be read off: one
// audit record, and nothing of the key-encryption key or the store.
func TestMetricsOfParts(t *testing.T) {
	r := fresh(t, nil)
	cc := plain(t, r.nodes, "")
	sealed, err := seal(within(t), cc, nodeA, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unseal(within(t), cc, nodeA, sealed); err != nil {
		t.Fatal(err)
	}
	names := []string{"cryptctl_kms_kek_calls_total", "cryptctl_kms_store_writes_total", "cryptctl_kms_audit_records_total", "cryptctl_kms_audit_syncs_total"}
	before := map[string]int{}
	for _, name := range names {
		if before[name] = metric(t, r, name); before[name] < 1 {
			t.Errorf("%s is %d after a seal", name, before[name])
		}
	}
	for range 3 {
		if _, err := unseal(within(t), cc, nodeA, sealed); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []int{0, 0, 3, 3} {
		if got := metric(t, r, names[i]) - before[names[i]]; got != want {
			t.Errorf("3 unseals add %d to %s; want %d", got, names[i], want)
		}
	}
}
