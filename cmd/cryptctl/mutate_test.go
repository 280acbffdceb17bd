package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// Places in a LUKS2 binary header (LUKS2 On-Disk Format Specification, section
// 2.1), written down here once more: a reader that is wrong must not be tested
// by a writer that is wrong in the same way.
const (
	atHdrSize  = 8
	atSeqID    = 16
	atUUID     = 168
	atChecksum = 448
	atJSON     = 4096
	uuidSize   = 40
)

// mutateCommand changes header copies as someone would who can write the disk
// and has no key: the checksums are right afterwards.
func mutateCommand(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, 4, "mutate [0|1] FILE PATH VALUE")
	copies := []int{0, 1}
	if len(args) == 4 {
		n, err := strconv.Atoi(args[0])
		ts.Check(err)
		copies, args = []int{n}, args[1:]
	}
	path := ts.MkAbs(args[0])
	for _, n := range copies {
		ts.Check(mutate(path, n, func(header []byte) ([]byte, error) { return change(header, args[1], args[2]) }))
	}
}

// mutate rewrites one header copy and its checksum.
func mutate(path string, copy int, change func([]byte) ([]byte, error)) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	first := make([]byte, atJSON)
	if _, err := f.ReadAt(first, 0); err != nil {
		return err
	}
	size := binary.BigEndian.Uint64(first[atHdrSize:])
	if string(first[:4]) != "LUKS" || size > 4<<20 {
		return fmt.Errorf("%s: no LUKS2 header", path)
	}
	header, at := make([]byte, size), int64(copy)*int64(size)
	if _, err := f.ReadAt(header, at); err != nil {
		return err
	}
	if header, err = change(header); err != nil {
		return err
	}
	clear(header[atChecksum : atChecksum+64])
	sum := sha256.Sum256(header)
	for i, b := range sum {
		header[atChecksum+i] = b
	}
	_, err = f.WriteAt(header, at)
	return errors.Join(err, f.Close())
}

// change sets one member of the JSON, or a field of the binary header.
func change(header []byte, path, value string) ([]byte, error) {
	switch path {
	case "@uuid":
		text, err := strconv.Unquote(`"` + value + `"`)
		clear(header[atUUID : atUUID+uuidSize])
		return header, errors.Join(err, put(header[atUUID:atUUID+uuidSize], text))
	case "@seqid":
		n, err := strconv.ParseUint(value, 10, 64)
		binary.BigEndian.PutUint64(header[atSeqID:], n)
		return header, err
	}
	var doc, v any
	text, _, _ := bytes.Cut(header[atJSON:], []byte{0})
	if err := unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if err := unmarshal([]byte(value), &v); err != nil {
		return nil, fmt.Errorf("value %s: %w", value, err)
	}
	parent, name := any(doc), path
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		var ok bool
		if parent, ok = lookup(doc, path[:i]); !ok {
			return nil, fmt.Errorf("there is no %s", path[:i])
		}
		name = path[i+1:]
	}
	object, ok := parent.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s is not in an object", path)
	}
	object[name] = v
	out, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	clear(header[atJSON:])
	return header, put(header[atJSON:], string(out))
}

func unmarshal(text []byte, v *any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode(v)
}

func put(room []byte, text string) error {
	if len(text) >= len(room) {
		return fmt.Errorf("%d bytes do not fit %d", len(text), len(room))
	}
	copy(room, text)
	return nil
}
