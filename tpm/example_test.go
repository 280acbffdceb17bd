package tpm_test

import (
	"context"
	"fmt"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/tpm"
)

// A slot that opens as long as Secure Boot is on with the same keys and a signed
// image was booted, once in each boot.
func Example() {
	device := tpm.System()
	provider, err := tpm.New(tpm.Options{
		Device: device,
		Policy: tpm.Policy{PCRs: []int{7}, Signed: true, Latch: true},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	key := keys.Key{Slot: 1, Kind: "tpm", Provider: provider, Tokens: tpm.Tokens(), Random: true}
	fmt.Println(key.Provider, key.Tokens)
	_ = func(ctx context.Context) error { return device.Latch(ctx) } // after the last volume is open
	// Output:
	// tpm.Provider(cryptctl) [cryptctl-tpm2 talos-tpm2 systemd-tpm2]
}
