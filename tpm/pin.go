package tpm

import (
	"context"
	"encoding/base64"
	"fmt"

	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm/token"
)

// pinKey is what a PIN becomes: the value that the TPM compares, and for our own
// tokens a key that goes into the envelope's. With the second, a TPM that is
// broken open still leaves the PIN to be guessed, at Argon2id's price.
type pinKey struct {
	auth, envelope *secret.Bytes
}

func (k pinKey) wipe() { k.auth.Wipe(); k.envelope.Wipe() }

// pinSize is the length of each half of a stretched PIN.
const pinSize = 32

// pinCost is Argon2id with 64 MiB: a PIN is typed at boot, on small machines too,
// and the TPM bounds how often it can be tried.
func pinCost() kdf.Cost {
	return kdf.Cost{Kind: kdf.Argon2id, Time: 4, MemoryKiB: 64 << 10, CPUs: 1}
}

// pinLimits is what a token may make us spend.
func pinLimits() kdf.Limits {
	return kdf.Limits{MaxMemoryKiB: 256 << 10, MaxWorkKiB: 16 << 20}
}

// checkPIN refuses parameters that make a PIN cheaper to guess than ours do: who
// changes a token could otherwise have it tried for next to nothing.
func checkPIN(p token.OwnPIN) error {
	if least := pinCost(); p.Time < least.Time || p.MemoryKiB < least.MemoryKiB {
		return fail(Damaged, nil, "the token has the PIN stretched with %d passes over %d KiB, and less than %d over %d is never written; restore the header, or use another key", p.Time, p.MemoryKiB, least.Time, least.MemoryKiB)
	}
	return nil
}

// newPIN makes the parameters of a PIN that is sealed now.
func newPIN() *token.OwnPIN {
	p := pinCost().Salted()
	return &token.OwnPIN{Salt: p.Salt, Time: p.Time, MemoryKiB: p.MemoryKiB}
}

// ownPIN stretches a PIN for our own token.
func ownPIN(ctx context.Context, pin *secret.Bytes, p token.OwnPIN) (pinKey, error) {
	if err := checkPIN(p); err != nil {
		return pinKey{}, err
	}
	cost := pinCost()
	cost.Time, cost.MemoryKiB = p.Time, p.MemoryKiB
	out, err := kdf.Params{Cost: cost, Salt: p.Salt}.Derive(ctx, pin, 2*pinSize, pinLimits())
	if err != nil {
		if ctx.Err() != nil {
			return pinKey{}, fail(Faulty, err, "stretching the PIN was ended")
		}
		return pinKey{}, fail(Damaged, err, "the token's parameters for the PIN")
	}
	defer out.Wipe()
	return pinKey{secret.Copy(out.Bytes()[:pinSize]), secret.Copy(out.Bytes()[pinSize:])}, nil
}

// systemdRounds is what systemd stretches a PIN with, since version 253.
const systemdRounds = 10000

// systemdPIN gives the auth value of a PIN as systemd makes it: PBKDF2 where the
// token has a salt, its base64, SHA-256 of that.
func systemdPIN(pin *secret.Bytes, salt []byte) pinKey {
	text := pin.Clone()
	defer func() { text.Wipe() }()
	if len(salt) > 0 {
		out := pbkdf2(pin, salt, systemdRounds)
		text.Wipe()
		text = encode(out)
		out.Wipe()
	}
	sum := sumSecret(text)
	defer clear(sum[:])
	return pinKey{auth: secret.Copy(trimZeros(sum[:]))}
}

// encode gives the base64 of a secret.
func encode(s *secret.Bytes) *secret.Bytes {
	return secret.Take(base64.StdEncoding.AppendEncode(nil, s.Bytes()))
}

// askPIN gets the PIN from whoever knows it.
func askPIN(ctx context.Context, ask func(context.Context) (*secret.Bytes, error)) (*secret.Bytes, error) {
	if ask == nil {
		return nil, fail(PINMissing, nil, "the key needs a PIN, and there is nobody to ask for it")
	}
	pin, err := ask(ctx)
	if err != nil {
		return nil, fail(PINMissing, err, "the key needs a PIN")
	}
	if pin.Len() == 0 {
		return nil, fail(PINMissing, nil, "the PIN is empty")
	}
	return pin, nil
}

// wrongPIN says how often one can still try.
func wrongPIN(l *link) error {
	s, err := status(l)
	if err != nil {
		e := fail(PINWrong, nil, "the TPM refuses the PIN")
		return e
	}
	if s.LockedOut {
		return lockedOut()
	}
	e := fail(PINWrong, nil, "the TPM refuses the PIN; %s", tries(s.TriesLeft()))
	e.TriesLeft = s.TriesLeft()
	return e
}

func tries(n int) string {
	if n == 1 {
		return "one more wrong one locks the TPM"
	}
	return fmt.Sprintf("%d tries are left until the TPM locks itself", n)
}
