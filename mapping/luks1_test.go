package mapping_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks1"
	"github.com/cryptctl/cryptctl/mapping"
)

// luks1Volume is a LUKS1 volume without slots: aes-xts-plain64, a key of 32
// bytes, data from that sector (LUKS1 On-Disk Format Specification, section 2.1).
func luks1Volume(payload uint32) memory {
	m := make(memory, deviceSize)
	copy(m, "LUKS\xba\xbe\x00\x01")
	copy(m[8:], "aes")
	copy(m[40:], "xts-plain64")
	copy(m[72:], "sha256")
	copy(m[168:], uuid)
	binary.BigEndian.PutUint32(m[104:], payload)
	binary.BigEndian.PutUint32(m[108:], 32)
	binary.BigEndian.PutUint32(m[164:], 1000)
	for id := range 8 {
		binary.BigEndian.PutUint32(m[208+48*id:], 0xDEAD)
	}
	return m
}

func luks1Header(t *testing.T, m memory) *luks1.Header {
	t.Helper()
	h, err := luks1.Read(m)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The lines are what cryptsetup 2.6.1 loads; test/vm compares them on a kernel.
func TestTableLUKS1(t *testing.T) {
	zeros := strings.Repeat("0", 64)
	for _, c := range []struct {
		name    string
		payload uint32
		opts    mapping.Options
		want    string
	}{
		{"default", 2048, mapping.Options{}, "0 512 crypt aes-xts-plain64 " + zeros + " 0 254:16 2048"},
		{"detached", 0, mapping.Options{}, "0 2560 crypt aes-xts-plain64 " + zeros + " 0 254:16 0"},
		{
			"flags", 2048,
			mapping.Options{Flags: []mapping.Flag{mapping.SameCPUCrypt, mapping.AllowDiscards}},
			"0 512 crypt aes-xts-plain64 " + zeros + " 0 254:16 2048 2 allow_discards same_cpu_crypt",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			table, err := mapping.NewTableLUKS1(luks1Header(t, luks1Volume(c.payload)), device, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			if got := table.String(); got != c.want {
				t.Errorf("the table is %s\nwant         %s", got, c.want)
			}
		})
	}
}

func TestTableLUKS1Refused(t *testing.T) {
	volume := luks1Volume(2048)
	cbc, noUUID := bytes.Clone(volume), bytes.Clone(volume)
	copy(cbc[40:], "cbc-essiv:sha256\x00")
	copy(noUUID[168:], "4e9f7a52_")
	for _, c := range []struct {
		name   string
		volume memory
		device mapping.Device
		opts   mapping.Options
		says   string
	}{
		{"another cipher", cbc, device, mapping.Options{}, `the header is refused: cipher-name: cipher "aes-cbc-essiv:sha256"`},
		{"no UUID", noUUID, device, mapping.Options{}, "is not of the form 8-4-4-4-12"},
		{"truncated device", volume, mapping.Device{Size: dataOffset}, mapping.Options{}, "it was truncated"},
		{"unknown flag", volume, device, mapping.Options{Flags: []mapping.Flag{"no_such_flag"}}, `flag "no_such_flag"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := mapping.NewTableLUKS1(luks1Header(t, c.volume), c.device, c.opts)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("it says: %v\nwant: %s", err, c.says)
			}
		})
	}
}

func TestLUKS1DataOverItsHeader(t *testing.T) {
	detached, attached := luks1Volume(0), luks1Volume(2048)
	_, other := formatted(t, luks.FormatOptions{Detached: true, UUID: uuid})
	for _, c := range []struct {
		name string
		h    memory
		data io.ReaderAt
		says string
	}{
		{"on itself", detached, detached, "the data would lie over it"},
		{"on the same bytes elsewhere", detached, memory(bytes.Clone(detached)), "the data would lie over it"},
		{"on a device of zeros", detached, make(memory, deviceSize), ""},
		{"on a LUKS2 volume", detached, other, ""},
		{"data behind the header", attached, attached, ""},
		{"a device that fails", detached, failing{}, "medium error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := mapping.CheckOverlapLUKS1(luks1Header(t, c.h), c.data, deviceSize)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("it says: %v\nwant: %s", err, c.says)
			}
		})
	}
}
