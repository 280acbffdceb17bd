package main

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/rogpeppe/go-internal/testscript"
)

// relabel gives a partition of a GPT image another label, in both tables, as
// disk create would not: one that is there already, or is no plain text (UEFI
// 2.10, section 5.3).
func relabel(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, 3, "relabel FILE NUMBER LABEL")
	const sector, entrySize, labelAt, labelSize = 512, 128, 56, 72
	number, err := strconv.Atoi(args[1])
	ts.Check(err)
	label, err := strconv.Unquote(`"` + args[2] + `"`)
	ts.Check(err)
	path := ts.MkAbs(args[0])
	disk, err := os.ReadFile(path)
	ts.Check(err)
	for _, at := range []int{sector, len(disk) - sector} {
		header := disk[at:][:sector]
		entries := disk[sector*binary.LittleEndian.Uint64(header[72:]):]
		entries = entries[:binary.LittleEndian.Uint32(header[80:])*entrySize]
		field := entries[(number-1)*entrySize:][labelAt:][:labelSize]
		clear(field)
		for i, unit := range utf16.Encode([]rune(label)) {
			binary.LittleEndian.PutUint16(field[2*i:], unit)
		}
		binary.LittleEndian.PutUint32(header[88:], crc32.ChecksumIEEE(entries))
		binary.LittleEndian.PutUint32(header[16:], 0)
		binary.LittleEndian.PutUint32(header[16:], crc32.ChecksumIEEE(header[:binary.LittleEndian.Uint32(header[12:])]))
	}
	ts.Check(os.WriteFile(path, disk, 0o600))
}

// loop makes a loop device of a file, and names it in $LOOP.
func loop(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, 2, "loop FILE [read-only]")
	flags := []string{"--find", "--show", ts.MkAbs(args[0])}
	if len(args) == 2 {
		flags = append(flags, "--"+args[1])
	}
	out, err := exec.Command("losetup", flags...).Output()
	ts.Check(err)
	dev := strings.TrimSpace(string(out))
	ts.Defer(func() { exec.Command("losetup", "--detach", dev).Run() })
	ts.Setenv("LOOP", dev)
}

// hold keeps a block device to itself, as a mount does.
func hold(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, 1, "hold DEVICE")
	f, err := os.OpenFile(args[0], os.O_RDWR|os.O_EXCL, 0)
	ts.Check(err)
	ts.Defer(func() { f.Close() })
}
