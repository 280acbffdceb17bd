package tpm

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"

	"github.com/google/go-tpm/tpm2/transport"
)

// swtpmPrefix begins the spec of a software TPM.
const swtpmPrefix = "swtpm:"

// Dial returns the TPM that spec names. Nothing is opened yet.
//
//	""             the machine's own, as [System]
//	/dev/tpmrm0    this character device
//	swtpm:SOCKET   the software TPM swtpm, at the path of its Unix socket
//
// A software TPM knows nothing of the machine, and the machine's event log says
// nothing of it: see [IsMachine].
func Dial(spec string) (*Device, error) {
	socket, software := strings.CutPrefix(spec, swtpmPrefix)
	switch {
	case spec == "":
		return System(), nil
	case software && !filepath.IsAbs(socket) && !strings.HasPrefix(socket, "."):
		return nil, fmt.Errorf("%q does not name a software TPM: give the path of its Unix socket, as in swtpm:/run/swtpm.sock", spec)
	case software:
		return NewDevice(func() (transport.TPMCloser, error) { return dialSocket(socket) }), nil
	case !filepath.IsAbs(spec):
		return nil, fmt.Errorf("%q does not name a TPM: give a device, as in /dev/tpmrm0, or a socket, as in swtpm:/run/swtpm.sock", spec)
	}
	return atPaths(spec), nil
}

// IsMachine says whether a spec of [Dial] is about the machine's own TPM, the one
// that its firmware measured into.
func IsMachine(spec string) bool { return !strings.HasPrefix(spec, swtpmPrefix) }

func dialSocket(path string) (transport.TPMCloser, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	return stream{conn}, nil
}

// stream is a TPM behind a connection, which may give an answer in pieces.
type stream struct{ io.ReadWriteCloser }

// Send implements [transport.TPM].
func (s stream) Send(command []byte) ([]byte, error) {
	if _, err := s.Write(command); err != nil {
		return nil, err
	}
	answer := make([]byte, maxAnswer)
	if _, err := io.ReadFull(s, answer[:headerSize]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(answer[2:])
	if size < headerSize || size > maxAnswer {
		return nil, fmt.Errorf("an answer that says it has %d bytes; %d to %d are possible", size, headerSize, maxAnswer)
	}
	_, err := io.ReadFull(s, answer[headerSize:size])
	return answer[:size], err
}
