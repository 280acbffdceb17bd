package document

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/cryptctl/cryptctl/secret"
)

// ReadFile reads a file, or the standard input for "-", of at most limit bytes
// into locked memory. What goes wrong is a mistake in the report.
func ReadFile(in *Report, path string, limit int) (*secret.Bytes, bool) {
	var f io.Reader = os.Stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			unreadable(in, err)
			return nil, false
		}
		defer file.Close()
		f = file
	}
	data, err := secret.Read(f, limit)
	switch {
	case errors.Is(err, secret.ErrTooLong):
		tooLarge(in, limit)
	case err != nil:
		unreadable(in, err)
	}
	return data, err == nil
}

func tooLarge(in *Report, limit int) {
	in.Fail(0, "", fmt.Sprintf("is larger than %d KiB", limit>>10), "check that this is the right file")
}

func unreadable(in *Report, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		in.Fail(0, "", "no such file", "check the path")
	case errors.Is(err, fs.ErrPermission):
		in.Fail(0, "", "may not be read by this user", "run as its owner or as root")
	case errors.Is(err, syscall.EISDIR):
		in.Fail(0, "", "is a directory", "name the files in it")
	default:
		if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
			err = pe.Err
		}
		in.Fail(0, "", "cannot be read: "+err.Error(), "check the path and the device it is on")
	}
}
