package keys

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/cryptctl/cryptctl/secret"
)

// Request names what a key is for, so that a provider can bind it: as associated
// data of a sealed blob, say.
type Request struct {
	UUID   string // of the LUKS volume
	Volume string // its name: STATE, EPHEMERAL, u-data
	Slot   int
	// Identity tells the volume from all others: a fingerprint of its volume key.
	// Only Enroll has it, since asking a provider comes before the volume is open.
	Identity string
}

// Provider is a source of passphrases. It is asked from several goroutines.
// Its errors wrap one of the classes below; others count as [ErrUnavailable].
type Provider interface {
	// Enroll makes a passphrase for a slot, and the token to store beside it, a
	// JSON object with type and keyslots; nil for a provider that needs none.
	Enroll(ctx context.Context, req Request) (passphrase *secret.Bytes, token json.RawMessage, err error)
	// Recover returns the passphrase again. token is the one that Enroll gave,
	// as it stands in the header now; nil when there is none.
	Recover(ctx context.Context, req Request, token json.RawMessage) (*secret.Bytes, error)
}

// Witness is a [Provider] whose tokens also say which volume they are for.
type Witness interface {
	// RecoverFor is Recover, with the identity that the request had when the token
	// was made; "" when the token has none.
	RecoverFor(ctx context.Context, req Request, token json.RawMessage) (passphrase *secret.Bytes, identity string, err error)
}

// Checker is a [Provider] that can tell from a token, without asking anyone,
// whether the key is as it is configured now.
type Checker interface {
	// CheckToken says how the token differs from one that Enroll would make now;
	// nil when it does not.
	CheckToken(token json.RawMessage) error
}

// Classes of provider errors. The reconciler acts on the class.
var (
	// ErrUnavailable: no answer now; try later. The slot stays as it is.
	ErrUnavailable = errors.New("unavailable")
	// ErrStale: sealed to another state of the machine; to be made anew when
	// the policy allows it.
	ErrStale = errors.New("stale")
	// ErrRejected: there is a passphrase, and it does not open the slot.
	ErrRejected = errors.New("rejected")
	// ErrDenied: the answer is no, and will be.
	ErrDenied = errors.New("denied")
	// ErrMalformed: the token cannot be read.
	ErrMalformed = errors.New("malformed")
	// ErrNoToken: the slot has no token, or one of another kind. It is seen in
	// the header, so no provider can claim it.
	ErrNoToken = errors.New("no token")
)

// Class returns the class of a provider's error.
func Class(err error) error {
	for _, class := range []error{ErrStale, ErrRejected, ErrDenied, ErrMalformed, ErrNoToken} {
		if errors.Is(err, class) {
			return class
		}
	}
	return ErrUnavailable
}

// DefaultTimeout is how long one provider may take for one answer, as in Talos.
const DefaultTimeout = 20 * time.Second

// Key is one wanted key.
type Key struct {
	Slot     int
	Kind     string // "static", "nodeID", "kms", "tpm": for people and records
	Provider Provider
	// Tokens are the token types that the provider reads, for kinds that seal
	// their passphrase. Without any, the configuration itself is the passphrase,
	// and a slot that it does not open is out of date. With them, a passphrase
	// that does not open the slot may be the server's fault, and the slot stays.
	Tokens []string
	// Random says that the passphrase has 256 random bits: stretching it adds
	// nothing, and a fingerprint of it gives nothing away.
	Random bool
	// Timeout bounds each call of the provider; 0 means DefaultTimeout.
	Timeout time.Duration
	// Remote says that the provider asks over the network, so that an answer may
	// take as long as the timeout allows while nothing is wrong here: what can go on
	// without it does, see [Session.ApplyLocal].
	Remote bool
	// Reseal, when there is one, is asked whether a key that is stale, as its
	// provider said, may be made anew without [Policy.Reseal]; its error says why
	// not.
	Reseal func(stale error) error
}

func (k Key) timeout() time.Duration {
	if k.Timeout == 0 {
		return DefaultTimeout
	}
	return k.Timeout
}
