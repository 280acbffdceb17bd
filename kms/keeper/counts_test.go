package keeper_test

import (
	"testing"

	"github.com/cryptctl/cryptctl/kms/keeper"
)

// TestCounts: the counts are those of the calls that arrive, and a steady Unseal
// adds to none of them.
func TestCounts(t *testing.T) {
	k := start(t, open())
	raw := k.sealed(nodeA, "thirty-two bytes of a passphrase")
	unseal := func() {
		t.Helper()
		data, err := k.Unseal(t.Context(), from(nodeA), raw)
		if err != nil {
			t.Fatal(err)
		}
		k.Release(data)
	}
	unseal()
	got := k.Counts()
	want := keeper.Counts{
		StoreReads: int64(k.count("get")), StoreWrites: int64(k.count("swap")), KEKCalls: int64(k.count("wrap") + k.count("unwrap")),
	}
	if got != want || got.StoreReads == 0 || got.StoreWrites == 0 || got.KEKCalls < 2 {
		t.Errorf("counted are %+v; %+v arrived", got, want)
	}
	for range 100 {
		unseal()
	}
	if again := k.Counts(); again != got {
		t.Errorf("100 times more, and it asked more: %+v, then %+v", got, again)
	}
	if records := k.count("append"); records != 102 { // a seal, and the unseals
		t.Errorf("%d records", records)
	}
}
