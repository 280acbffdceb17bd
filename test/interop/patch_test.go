package interop_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"os"
	"testing"
)

// odd is a header that differs from a good one in one point. It is made by code
// of its own, which knows only the offsets of the LUKS2 specification.
type odd struct {
	name string

	doc    func(doc object)          // changes the document
	text   func(text string) string  // changes the text of the document
	binary func(copy []byte, at int) // changes a copy before its checksum
	spoil  func(image []byte)        // changes the image after the checksums
}

type object = map[string]any

// member returns a member of members that is an object.
func member(o object, path ...string) object {
	for _, name := range path {
		o = o[name].(object)
	}
	return o
}

const hdrSize = 16 << 10 // of the headers that are patched

// apply writes the header to the image.
func (c odd) apply(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	image := make([]byte, 2*hdrSize)
	if _, err := f.ReadAt(image, 0); err != nil {
		t.Fatal(err)
	}
	text, _, _ := bytes.Cut(bytes.Clone(image[4096:hdrSize]), []byte{0})
	if c.doc != nil {
		doc := parse(t, text).(object)
		c.doc(doc)
		if text, err = json.Marshal(doc); err != nil {
			t.Fatal(err)
		}
	}
	if c.text != nil {
		changed := c.text(string(text))
		if changed == string(text) {
			t.Fatal("the text was not changed")
		}
		text = []byte(changed)
	}
	for at := 0; at < len(image); at += hdrSize {
		copyOf := image[at : at+hdrSize]
		clear(copyOf[4096:])
		copy(copyOf[4096:], text)
		if c.binary != nil {
			c.binary(copyOf, at)
		}
		clear(copyOf[448:512])
		sum := sha256.Sum256(copyOf)
		if alg, _, _ := bytes.Cut(copyOf[72:104], []byte{0}); string(alg) == "sha512" {
			long := sha512.Sum512(copyOf)
			copy(copyOf[448:], long[:])
			continue
		}
		copy(copyOf[448:], sum[:])
	}
	if c.spoil != nil {
		c.spoil(image)
	}
	if _, err := f.WriteAt(image, 0); err != nil {
		t.Fatal(err)
	}
}
