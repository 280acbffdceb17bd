package tpmtest

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"
)

// Measure does what firmware does: the TPM measures a text, and the event is
// appended to a log, which begins empty. Its format is that of firmware with a
// SHA-256 bank alone (TCG PC Client Platform Firmware Profile, 9.2), made here by
// the letter of it.
func Measure(t testing.TB, dev transport.TPM, log []byte, pcr int, kind uint32, text string) []byte {
	t.Helper()
	Extend(t, dev, pcr, text)
	le := binary.LittleEndian
	if len(log) == 0 {
		spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0b, 0, 32, 0, 0)
		log = append(le.AppendUint32(le.AppendUint32(nil, 0), 3), make([]byte, 20)...)
		log = append(le.AppendUint32(log, uint32(len(spec))), spec...)
	}
	log = le.AppendUint32(le.AppendUint32(log, uint32(pcr)), kind)
	log = append(log, 1, 0, 0, 0, 0x0b, 0)
	sum := sha256.Sum256([]byte(text))
	return append(le.AppendUint32(append(log, sum[:]...), uint32(len(text))), text...)
}
