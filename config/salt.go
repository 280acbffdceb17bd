package config

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/secret"
)

const (
	// saltSize is the length of the salt in bytes (Talos, diskSalt in
	// encryption-salt.yaml).
	saltSize = 32

	// maxSaltFile bounds the salt file in bytes, which has about 200.
	maxSaltFile = 64 << 10
)

// ReadSalt reads the salt of keys that are locked to STATE from the file
// encryption-salt.yaml of the STATE volume:
//
//	diskSalt:
//	  - 17
//	  - 203     32 numbers from 0 to 255, not all of them 0
//
// Other fields are passed over. The error, if any, is of type [Errors] and
// shows none of the numbers.
func ReadSalt(path string) (*secret.Bytes, error) {
	in := &input{Name: path}
	data, ok := document.ReadFile(in, path, maxSaltFile)
	if !ok {
		return nil, in.Sorted()
	}
	defer data.Wipe()
	salt := readSalt(in, data.Bytes())
	if in.Failed() {
		salt.Wipe()
		return nil, in.Sorted()
	}
	return salt, nil
}

// FormatSalt returns the text of the file that ReadSalt reads.
func FormatSalt(salt *secret.Bytes) *secret.Bytes {
	text := make([]byte, 0, len("diskSalt:\n")+salt.Len()*len("    - 255\n")) // so that it is not moved, and left behind
	text = append(text, "diskSalt:\n"...)
	for _, b := range salt.Bytes() {
		text = append(strconv.AppendUint(append(text, "    - "...), uint64(b), 10), '\n')
	}
	return secret.Take(text)
}

func readSalt(in *input, data []byte) *secret.Bytes {
	const restore = "restore the file; with another salt, locked volumes stay closed"
	docs := slices.DeleteFunc(document.Load(in, data), func(n *yaml.Node) bool { return document.IsNull(n.Content[0]) })
	if in.Failed() {
		return nil
	}
	if len(docs) != 1 {
		in.Fail(0, "", fmt.Sprintf("holds %d documents, not one with diskSalt", len(docs)), restore)
		return nil
	}
	root := cursor{in: in}.at(docs[0].Content[0], docs[0].Content[0].Line, "")
	if !root.mapping() {
		return nil
	}
	list := root.field("diskSalt")
	items := list.items(saltSize, "the salt has no more bytes")
	if len(items) != saltSize {
		list.fail(fmt.Sprintf("has %d numbers, not %d", len(items), saltSize), restore)
		return nil
	}
	salt := secret.New(saltSize)
	for i, item := range items {
		n, ok := item.integer()
		if !item.exists() || ok && (n < 0 || n > 255) {
			item.fail("is not a number from 0 to 255", restore)
		}
		salt.Bytes()[i] = byte(n)
	}
	if bytes.Equal(salt.Bytes(), make([]byte, saltSize)) {
		list.fail("is all zeros, which is no salt", restore)
	}
	return salt
}
