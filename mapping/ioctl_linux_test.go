package mapping

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func exampleTable() *Table {
	return &Table{
		Sectors: 512, Cipher: "aes-xts-plain64", KeySize: 4, Key: "cryptsetup:uuid-d0", IVOffset: 8,
		Device: Number{254, 16}, Offset: 2048, Flags: []Flag{AllowDiscards, NoReadWorkqueue}, SectorSize: 4096,
	}
}

// The bytes are those of linux/dm-ioctl.h: a dm_ioctl of 312 bytes, a
// dm_target_spec of 40, the arguments with their NUL, aligned to 8.
func TestLoadMessage(t *testing.T) {
	key := []byte{0xde, 0xad, 0xbe, 0xef}
	for _, c := range []struct{ name, key, arguments string }{
		{"keyring", "cryptsetup:uuid-d0", "aes-xts-plain64 :4:logon:cryptsetup:uuid-d0 8 254:16 2048 3 allow_discards no_read_workqueue sector_size:4096"},
		{"in the table", "", "aes-xts-plain64 deadbeef 8 254:16 2048 3 allow_discards no_read_workqueue sector_size:4096"},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := exampleTable()
			table.Key = c.key
			m := loadMessage("vol", unix.DM_SECURE_DATA_FLAG, table, key)
			defer m.wipe()
			m.encode()
			buf := m.buf.Bytes()
			order := binary.NativeEndian
			if order.Uint32(buf[0:]) != 4 || order.Uint32(buf[12:]) != uint32(len(buf)) || order.Uint32(buf[16:]) != 312 ||
				order.Uint32(buf[20:]) != 1 || order.Uint32(buf[28:]) != 1<<15 {
				t.Errorf("version, data_size, data_start, target_count or flags are wrong: % x", buf[:32])
			}
			if got := text(buf[48 : 48+128]); got != "vol" {
				t.Errorf("name %q", got)
			}
			spec := buf[312:]
			if order.Uint64(spec[0:]) != 0 || order.Uint64(spec[8:]) != 512 || order.Uint32(spec[20:]) != uint32(len(spec)) ||
				text(spec[24:40]) != "crypt" || len(spec)%8 != 0 {
				t.Errorf("target spec % x", spec[:40])
			}
			if got := string(bytes.TrimRight(spec[40:], "\x00")); got != c.arguments || spec[40+len(got)] != 0 {
				t.Errorf("arguments (-want +got):\n%s", cmp.Diff(c.arguments, got))
			}
			if strings.Contains(string(buf), hex.EncodeToString(key)) != (c.key == "") {
				t.Error("the key stands where it should not, or does not where it should")
			}
		})
	}
}

func TestDecodeMessage(t *testing.T) {
	m := newMessage("vol", "CRYPT-LUKS2-0-vol", unix.DM_READONLY_FLAG|unix.DM_ACTIVE_PRESENT_FLAG|unix.DM_DEFERRED_REMOVE, 512)
	defer m.wipe()
	m.Dev, m.Open_count, m.Target_count = unix.Mkdev(253, 300), 2, 1
	m.encode()
	table := exampleTable()
	sent := loadMessage("vol", 0, table, nil)
	defer sent.wipe()
	copy(m.payload(), sent.payload())

	m.DmIoctl = unix.DmIoctl{}
	m.decode()
	got, err := m.mapping()
	if err != nil {
		t.Fatal(err)
	}
	want := &Mapping{
		Name: "vol", UUID: "CRYPT-LUKS2-0-vol", Path: "/dev/mapper/vol", Number: Number{253, 300},
		ReadOnly: true, Deferred: true, OpenCount: 2, Table: table, live: true,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Mapping{})); diff != "" {
		t.Errorf("mapping (-want +got):\n%s", diff)
	}

	copy(m.payload()[24:40], "linear\x00")
	if got, err := m.mapping(); err != nil || got.Table != nil || !got.live {
		t.Errorf("a linear target gives %+v, %v", got, err)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`/mnt/a\040place`: "/mnt/a place", `/a\134b`: `/a\b`, `/a\04`: `/a\04`, `\999x`: `\999x`, "": ""} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}
