package tpmtest

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Recorder writes down what crosses the bus.
type Recorder struct {
	TPM   transport.TPM
	mu    sync.Mutex
	bytes []byte
	sent  int
}

// Send implements [transport.TPM].
func (r *Recorder) Send(command []byte) ([]byte, error) {
	answer, err := r.TPM.Send(command)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent++
	r.bytes = append(append(r.bytes, command...), answer...)
	return answer, err
}

// Close implements [transport.TPMCloser].
func (r *Recorder) Close() error { return nil }

// Open returns the recorder as those who open a device get it.
func (r *Recorder) Open() (transport.TPMCloser, error) { return r, nil }

// Count is how many commands were sent.
func (r *Recorder) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent
}

// Shows reports whether a window of 8 bytes of the secret was seen, in either
// direction.
func (r *Recorder) Shows(secret []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := 0; i+8 <= len(secret); i++ {
		if bytes.Contains(r.bytes, secret[i:i+8]) {
			return true
		}
	}
	return false
}

// Liar stands between a caller and a TPM.
type Liar struct {
	TPM transport.TPM
	// Answer makes the answer to the nth command, from 0. honest asks the TPM.
	Answer func(n int, command []byte, honest func() ([]byte, error)) ([]byte, error)
	mu     sync.Mutex
	n      int
}

// Send implements [transport.TPM].
func (l *Liar) Send(command []byte) ([]byte, error) {
	l.mu.Lock()
	n := l.n
	l.n++
	l.mu.Unlock()
	return l.Answer(n, command, func() ([]byte, error) { return l.TPM.Send(command) })
}

// Close implements [transport.TPMCloser].
func (l *Liar) Close() error { return nil }

// Open returns the liar as those who open a device get it.
func (l *Liar) Open() (transport.TPMCloser, error) { return l, nil }

// Code is the command code of a command.
func Code(command []byte) tpm2.TPMCC {
	if len(command) < 10 {
		return 0
	}
	return tpm2.TPMCC(binary.BigEndian.Uint32(command[6:]))
}

// Failed is the answer of a TPM that fails with a code.
func Failed(code tpm2.TPMRC) []byte {
	answer := []byte{0x80, 0x01, 0, 0, 0, 10}
	return binary.BigEndian.AppendUint32(answer, uint32(code))
}
