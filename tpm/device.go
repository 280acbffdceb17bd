package tpm

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
)

// Device is a TPM. It may be used by several goroutines: they take turns, and the
// TPM is open while one of them has work.
type Device struct {
	open func() (transport.TPMCloser, error)
	turn chan struct{}
	own  bool // the machine's: its firmware measures into it

	// Limit is how long one request to the TPM may take, its turn included; 0 is as
	// long as its context lets it. A PIN that is typed takes none of it. It is set
	// before the first request.
	Limit time.Duration
}

// NewDevice returns the TPM that open opens, each time that it is needed.
func NewDevice(open func() (transport.TPMCloser, error)) *Device {
	return &Device{open: open, turn: make(chan struct{}, 1)}
}

// System is the machine's TPM: /dev/tpmrm0, or /dev/tpm0 where the kernel has no
// resource manager.
func System() *Device {
	return atPaths("/dev/tpmrm0", "/dev/tpm0")
}

// atPaths is the machine's TPM at the first of these paths that can be opened.
func atPaths(paths ...string) *Device {
	d := NewDevice(func() (transport.TPMCloser, error) { return openFirst(paths...) })
	d.own = true
	return d
}

func openFirst(paths ...string) (transport.TPMCloser, error) {
	var errs []error
	for _, path := range paths {
		info, err := os.Stat(path)
		if err == nil && info.Mode()&os.ModeDevice == 0 {
			err = &fs.PathError{Op: "open", Path: path, Err: errors.New("is not a device")}
		}
		var f *os.File
		if err == nil {
			f, err = openBlocking(path)
		}
		if err == nil {
			return file{f}, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// openBlocking opens a device so that reading waits for the TPM. [os.OpenFile]
// does not: it makes what can be polled non-blocking, and the kernel's driver
// then gives an end of file where the answer is not there yet.
func openBlocking(path string) (*os.File, error) {
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// file is a TPM behind a device file or a connection.
type file struct{ io.ReadWriteCloser }

// Send implements [transport.TPM]. The kernel gives an answer in one piece.
func (f file) Send(command []byte) ([]byte, error) {
	if _, err := f.Write(command); err != nil {
		return nil, err
	}
	answer := make([]byte, maxAnswer+1)
	n, err := f.Read(answer)
	return answer[:n], err
}

// run does something with the TPM when it is its turn. It returns when the
// context or the device's limit ends, at the latest: the work is left behind then, stops before its
// next command, clears up after itself, and drop gets what it made. after runs
// once, when the work has ended or will not begin.
func run[T any](ctx context.Context, d *Device, drop func(T), after func(), work func(*link) (T, error)) (T, error) {
	var none T
	if d.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.Limit)
		defer cancel()
	}
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		after()
		return none, fail(Faulty, context.Cause(ctx), "the TPM is busy with another request")
	}
	type result struct {
		value T
		err   error
	}
	done, gone := make(chan result), make(chan struct{})
	go func() {
		defer func() { <-d.turn }()
		defer after()
		var r result
		r.value, r.err = once(ctx, d, work)
		select {
		case <-gone:
			drop(r.value)
		case done <- r:
		}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		close(gone)
		return none, fail(Faulty, context.Cause(ctx), "the TPM gave no answer in time")
	}
}

// nothing is the result of work that has none, and what is to be done with one
// that needs no care.
type nothing struct{}

func leave[T any](T) {}

func idle() {}

// once opens the TPM for one piece of work.
func once[T any](ctx context.Context, d *Device, work func(*link) (T, error)) (value T, err error) {
	if ctx.Err() != nil {
		return value, fail(Faulty, context.Cause(ctx), "the TPM was not asked")
	}
	dev, err := d.open()
	if err != nil {
		return value, fail(NoTPM, err, "the TPM cannot be opened; see that it is enabled in the firmware and that the kernel has its driver")
	}
	defer dev.Close()
	return work(&link{ctx, dev})
}
