package tpm

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// maxAnswer is how long a TPM's answer may be: the buffer size of the PC Client
// Platform TPM Profile.
const maxAnswer = 4096

// headerSize is tag, length and code (TPM 2.0 Part 1, 18.9).
const headerSize = 10

// Resending: 11 waits of 1 ms to 512 ms, about 1.5 s in all.
const (
	maxResends  = 11
	firstPause  = time.Millisecond
	longestWait = 512 * time.Millisecond
)

// link carries the commands of one piece of work. It is a [transport.TPM] that
// resends what a TPM asks to resend, ends with its context, and lets no answer
// pass that is not as long as it says.
type link struct {
	ctx context.Context
	dev transport.TPM
}

// Send implements [transport.TPM]. Flushing goes on after the context ended, so
// that what is left behind leaves nothing loaded.
func (l *link) Send(command []byte) ([]byte, error) {
	flush := len(command) >= headerSize && tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == tpm2.TPMCCFlushContext
	pause := firstPause
	for resent := 0; ; resent++ {
		if l.ctx.Err() != nil && !flush {
			return nil, context.Cause(l.ctx)
		}
		answer, err := l.dev.Send(command)
		if err != nil {
			return nil, err
		}
		if err := wellFormed(answer); err != nil {
			return nil, err
		}
		if !askedAgain(answer) || resent == maxResends {
			return answer, nil
		}
		select {
		case <-time.After(pause):
		case <-l.ctx.Done(): // seen above; a flush goes on
		}
		pause = min(2*pause, longestWait)
	}
}

func wellFormed(answer []byte) error {
	if len(answer) < headerSize || len(answer) > maxAnswer {
		return fmt.Errorf("an answer of %d bytes; %d to %d are possible", len(answer), headerSize, maxAnswer)
	}
	if says := binary.BigEndian.Uint32(answer[2:]); int64(says) != int64(len(answer)) {
		return fmt.Errorf("an answer of %d bytes that says it has %d", len(answer), says)
	}
	return nil
}

// askedAgain: the TPM did nothing and wants the same command once more. The
// first use of a PIN after start-up is answered so; the kernel's driver resends
// by itself, simulators and other transports leave it to us.
func askedAgain(answer []byte) bool {
	code := tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:]))
	return code == tpm2.TPMRCRetry || code == tpm2.TPMRCYielded || code == tpm2.TPMRCTesting
}

// flush unloads an object or ends a session. A failure is not reported: there is
// nothing to do about it, and the work itself tells what matters.
func (l *link) flush(h tpm2.TPMHandle) {
	_, _ = tpm2.FlushContext{FlushHandle: h}.Execute(l)
}

// ofKind guards what is flushed: a TPM that lies must not make us flush, or take
// for loaded, what is not of the kind asked for.
func ofKind(h tpm2.TPMHandle, kind tpm2.TPMHT) error {
	if tpm2.TPMHT(h>>24) != kind {
		return fmt.Errorf("the TPM gave the handle %#x, which is of another kind", uint32(h))
	}
	return nil
}
