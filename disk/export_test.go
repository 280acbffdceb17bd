package disk

import "io"

// ReadFrom reads a table as an image of that size, for the fuzz test.
func ReadFrom(r io.ReaderAt, size int64) (*Table, error) { return read(r, size, imageSectors()) }
