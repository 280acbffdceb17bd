package keys_test

import (
	"context"
	"fmt"
	"os"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// A volume whose keys are rotated: what a node daemon does when its
// configuration changes.
func Example() {
	ctx := context.Background()
	image, _ := os.CreateTemp("", "volume")
	defer os.Remove(image.Name())
	image.Truncate(20 << 20)
	image.Close()

	dev, err := luks.OpenFile(image.Name(), luks.ReadWrite)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	static := func(slot int, passphrase string) keys.Key {
		return keys.Key{Slot: slot, Kind: "static", Provider: keys.Static{Passphrase: secret.Take([]byte(passphrase))}}
	}
	opts := keys.Options{Cost: kdf.Light()} // an example must be quick; leave it out otherwise

	volumeKey := luks.NewVolumeKey(luks.DefaultVolumeKeySize)
	defer volumeKey.Wipe()
	header, err := keys.Format(ctx, dev, "STATE", []keys.Key{static(0, "January")}, volumeKey, luks.FormatOptions{}, opts)
	if err != nil {
		fmt.Println(err)
		return
	}

	// The key of slot 0 stays, slot 1 is new.
	want := []keys.Key{static(0, "January"), static(1, "February")}
	session, err := keys.Open(ctx, header, "STATE", want, opts)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer session.Close()
	report, err := session.Apply(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, slot := range report.Slots {
		fmt.Println(slot.Slot, slot.Outcome, slot.Reason)
	}
	// Output:
	// 0 kept opens (derived)
	// 1 added configured, not there
}
