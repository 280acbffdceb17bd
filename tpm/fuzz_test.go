package tpm_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

var record = flag.Bool("record", false, "write testdata/exchange-* anew, from a TPM")

// exchanges are what is recorded: a token and a boot image's files, and the
// answers of a TPM when the token was opened, each with 16 bits of its length.
var exchanges = []string{"own", "systemd"}

type exchange struct {
	Token   json.RawMessage
	Boot    tpm.Boot
	Answers []byte
}

func exchangeOptions(name string, boot tpm.Boot) tpm.Options {
	opts := tpm.Options{Policy: tpm.Policy{PCRs: []int{7}, Signed: true}, Boot: bootOf(boot)}
	if name == "systemd" {
		opts.Format, opts.Policy.PIN, opts.PIN = tpm.Systemd, true, pin("1234")
	}
	return opts
}

// readExchange returns a recorded exchange; a missing one is a failure.
func readExchange(t testing.TB, name string) exchange {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "exchange-"+name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var e exchange
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestRecord records the exchanges when it is told to.
func TestRecord(t *testing.T) {
	if !*record {
		if len(readExchange(t, exchanges[0]).Answers) < 500 {
			t.Error("the recorded exchange is too short to be one")
		}
		return
	}
	for _, name := range exchanges {
		m := booted(t)
		e := exchange{Boot: signers()[0].sign(t, m.Open)}
		opts := exchangeOptions(name, e.Boot)
		passphrase, token := enroll(t, newProvider(t, m.Open, opts))
		e.Token = token
		l := &tpmtest.Liar{TPM: m, Answer: func(_ int, _ []byte, honest func() ([]byte, error)) ([]byte, error) {
			answer, err := honest()
			e.Answers = append(binary.BigEndian.AppendUint16(e.Answers, uint16(len(answer))), answer...)
			return answer, err
		}}
		opens(t, newProvider(t, l.Open, opts), token, passphrase)
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("testdata", "exchange-"+name+".json"), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// play is a TPM that gives these answers, whatever it is asked.
func play(answers []byte, seen func(code tpm2.TPMCC)) *tpmtest.Liar {
	return &tpmtest.Liar{Answer: func(_ int, command []byte, _ func() ([]byte, error)) ([]byte, error) {
		seen(tpmtest.Code(command))
		if len(answers) < 2 {
			return nil, errors.New("no more answers")
		}
		n := min(int(binary.BigEndian.Uint16(answers)), len(answers)-2)
		answer := answers[2 : 2+n]
		answers = answers[2+n:]
		return answer, nil
	}}
}

// fixed gives every answer the length that it has, so that a fuzzer gets past
// the first check.
func fixed(answers []byte) (out []byte) {
	for len(answers) >= 2 {
		n := min(int(binary.BigEndian.Uint16(answers)), len(answers)-2)
		answer := append([]byte(nil), answers[2:2+n]...)
		answers = answers[2+n:]
		if n >= 10 {
			answer = sized(answer)
		}
		out = append(binary.BigEndian.AppendUint16(out, uint16(n)), answer...)
	}
	return out
}

// TestReplay: the answers of a TPM from before are not taken again: their MACs
// are over nonces of that time. It shows too how far the seeds of the fuzz
// target lead.
func TestReplay(t *testing.T) {
	t.Parallel()
	for _, name := range exchanges {
		e := readExchange(t, name)
		unsealed := false
		l := play(e.Answers, func(code tpm2.TPMCC) { unsealed = unsealed || code == tpm2.TPMCCUnseal })
		got, err := newProvider(t, l.Open, exchangeOptions(name, e.Boot)).Recover(t.Context(), request(), e.Token)
		got.Wipe()
		if tpm.ReasonOf(err) != tpm.Faulty || !unsealed || !strings.Contains(err.Error(), "MAC is wrong") {
			t.Errorf("%s: replayed answers, Unseal reached %v: %v", name, unsealed, err)
		}
	}
}

// FuzzAnswers feeds a TPM's answers: the outcome is an error with a reason, soon.
func FuzzAnswers(f *testing.F) {
	all := map[string]exchange{}
	for _, name := range exchanges {
		e := readExchange(f, name)
		all[name] = e
		f.Add(e.Answers)
		f.Add(e.Answers[:len(e.Answers)/2])
		f.Add(e.Answers[min(len(e.Answers), 2+int(binary.BigEndian.Uint16(e.Answers))):])
	}
	f.Add([]byte{0, 10, 0x80, 1, 0, 0, 0, 10, 0, 0, 0x09, 0x22})
	f.Fuzz(func(t *testing.T, answers []byte) {
		for name, e := range all {
			for _, stream := range [][]byte{answers, fixed(answers)} {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				p := newProvider(t, play(stream, func(tpm2.TPMCC) {}).Open, exchangeOptions(name, e.Boot))
				got, err := p.Recover(ctx, request(), e.Token)
				if tpm.ReasonOf(err) == "" {
					t.Errorf("opening %s: %d bytes, %v", name, got.Len(), err)
				}
				got.Wipe()
				got, _, err = newProvider(t, play(stream, func(tpm2.TPMCC) {}).Open, exchangeOptions(name, e.Boot)).Enroll(ctx, request())
				if tpm.ReasonOf(err) == "" {
					t.Errorf("sealing %s: %v", name, err)
				}
				got.Wipe()
				cancel()
			}
		}
	})
}
