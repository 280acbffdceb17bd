package interop_test

import (
	"os"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
)

// TestDetached keeps the header in one file and the data in another.
func TestDetached(t *testing.T) {
	t.Run("theirs", func(t *testing.T) {
		data := blank(t, plain(), 4<<20)
		d := blank(t, plain(), diskSize)
		args := append([]string{"luksFormat", "--type", "luks2", "--header", d.path, "--key-file", keyFile(t, "alpha")}, d.shape.costFlags()...)
		cryptsetup(t, append(args, data.path)...)
		d.born("alpha")
		d.work(data)
	})
	t.Run("theirs, in a file that luksFormat makes", func(t *testing.T) {
		data := blank(t, plain(), 4<<20)
		d := blank(t, plain(), 0)
		if err := os.Remove(d.path); err != nil {
			t.Fatal(err)
		}
		args := append([]string{"luksFormat", "--type", "luks2", "--header", d.path, "--key-file", keyFile(t, "alpha")}, d.shape.costFlags()...)
		cryptsetup(t, append(args, data.path)...)
		d.born("alpha")
		d.work(data)
	})
	for name, c := range map[string]struct {
		header int64
		opts   luks.FormatOptions
	}{
		"ours":                          {diskSize, luks.FormatOptions{DataSize: 4 << 20}},
		"ours, just large enough":       {2*16<<10 + 3*258048, luks.FormatOptions{MetadataSize: 16 << 10}},
		"ours, data behind 1 MiB":       {16 << 20, luks.FormatOptions{DataOffset: 1 << 20}},
		"ours, data behind 64 MiB":      {4 << 20, luks.FormatOptions{DataOffset: 64 << 20}},
		"ours, header larger than data": {diskSize, luks.FormatOptions{MetadataSize: 4 << 20}},
	} {
		t.Run(name, func(t *testing.T) {
			data := blank(t, plain(), 4<<20)
			d := blank(t, plain(), c.header)
			c.opts.Detached = true
			key := luks.NewVolumeKey(64)
			if _, err := luks.Format(d.open(), key, c.opts, luks.AddKeyslot(0, d.seal(key, "alpha"), nil)); err != nil {
				t.Fatal(err)
			}
			d.born("alpha")
			d.work(data)
		})
	}
}

// work exchanges keys in a detached header.
func (d *disk) work(data *disk) {
	d.Helper()
	d.accepted("formatted")
	d.sameKey("formatted", 0)
	d.addHere(1, "bravo")
	d.changeThere(0, "charlie", true)
	d.replaceHere(1, "delta")
	d.opens("after changes")
	if r := try(d, "open", "--test-passphrase", "--header", d.path, "--key-file", keyFile(d, "delta"), data.path); r.code != 0 {
		d.Errorf("cryptsetup does not open the data by the header: %s", r.out)
	}
}
