package interop_test

import (
	"errors"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
)

// TestLUKS1: the older format is named, left alone, and opened once cryptsetup
// has converted it.
func TestLUKS1(t *testing.T) {
	for _, hash := range []string{"sha256", "sha1", "sha512"} {
		t.Run(hash, func(t *testing.T) {
			d := blank(t, plain(), diskSize)
			cryptsetup(t, "luksFormat", "--type", "luks1", "--hash", hash, "--pbkdf-force-iterations", "1000",
				"--key-size", "512", "--cipher", "aes-xts-plain64", "--key-file", keyFile(t, "alpha"), d.path)
			if _, err := luks.Read(d.open()); !errors.Is(err, luks.LUKS1) {
				t.Errorf("we read it with %v, want %s", err, luks.LUKS1)
			}

			cryptsetup(t, "convert", "--type", "luks2", d.path)
			d.born("alpha")
			d.accepted("converted")
			if n := len(d.header().Digests()[0].Digest); n != 20 {
				t.Errorf("the digest has %d bytes; a converted one should have 20", n)
			}
			d.sameKey("converted", 0)
			d.addHere(1, "bravo")
			d.addThere(2, "charlie")
			d.replaceHere(0, "delta")
			d.changeThere(1, "echo", true)
			d.opens("converted and changed")
		})
	}
}
