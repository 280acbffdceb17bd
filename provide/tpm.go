package provide

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/secureboot"
)

// pinTimeout is how long a person may take to type a PIN.
const pinTimeout = 5 * time.Minute

// tpmKey is a key that the TPM seals, with what the configuration asks of the
// machine beside the TPM's policy.
type tpmKey struct {
	*tpm.Provider
	mayEnroll, mayOpen func() error
	refused            error // why no key is sealed under the policy
}

func yes() error { return nil }

// sealed gives a key its provider. One whose policy is refused seals nothing, and
// still opens what was sealed before.
func (m Machine) sealed(c *config.TPM, key *keys.Key) {
	key.Tokens, key.Random = tpm.Tokens(), true
	if m.PIN != nil { // a token may have one that the configuration does not
		key.Timeout = pinTimeout
	}
	p := tpmKey{mayEnroll: yes, mayOpen: yes}
	if c.CheckSecurebootStatusOnEnroll {
		p.mayEnroll = m.secureBoot
	}
	if c.CheckSecurebootStatusOnUnseal {
		p.mayOpen = m.secureBoot
	}
	opts := tpm.Options{
		Device: m.TPM, Boot: m.Boot, PIN: m.PIN, EventLog: m.EventLog,
		Format: tpm.Format(c.Format), SigningKey: c.SigningKey, Policy: m.policy(c),
	}
	var err error
	if p.Provider, err = tpm.New(opts); err != nil {
		p.refused = err
		opts.Format, opts.SigningKey, opts.Policy = "", nil, tpm.Policy{AllowWeak: true}
		p.Provider, err = tpm.New(opts)
	}
	key.Provider = p
	if err != nil {
		key.Provider = Lacking(err.Error())
	} else if c.Reseal {
		key.Reseal = func(stale error) error { return m.mayReseal(p, stale) }
	}
}

// policy is what new keys are sealed to. The signed part is there when the boot
// image brings what it takes, or what it brings cannot be read.
func (m Machine) policy(c *config.TPM) tpm.Policy {
	p := tpm.Policy{
		PCRs: c.PCRs, PIN: c.PIN, Latch: !c.NoLatch, AllowWeak: c.AllowWeakPolicy,
		Signed: c.SigningKey != nil || tpm.Format(c.Format) == tpm.Talos,
	}
	if !p.Signed {
		read := m.Boot
		if read == nil {
			read = tpm.ReadBoot
		}
		boot, err := read()
		p.Signed = len(boot.PublicKey) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist)
	}
	return p
}

// mayReseal lets a stale key be sealed anew where Secure Boot vouches for what was
// booted, and the event log for the registers. A TPM that is another one may be
// that of a workbench: an operator says whether the key is to move there.
func (m Machine) mayReseal(k tpmKey, stale error) error {
	if tpm.ReasonOf(stale) == tpm.OtherTPM {
		return errors.New("the key would move to another machine; sync --reseal does that")
	}
	if err := m.secureBoot(); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.Background(), keys.DefaultTimeout)
	defer stop()
	return k.Accounted(ctx)
}

// secureBoot is nil when Secure Boot is on.
func (m Machine) secureBoot() error {
	s, err := secureboot.Read(cmp.Or(m.Firmware, secureboot.Path))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", keys.ErrUnavailable, err)
	case !s.Enforced():
		return fmt.Errorf("%w: Secure Boot is %s", keys.ErrDenied, s)
	}
	return nil
}

// Enroll implements [keys.Provider].
func (k tpmKey) Enroll(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
	if err := cmp.Or(k.refused, k.mayEnroll()); err != nil {
		return nil, nil, fmt.Errorf("nothing is sealed: %w", err)
	}
	return k.Provider.Enroll(ctx, req)
}

// CheckToken implements [keys.Checker]. A key that cannot be made anew is not said
// to be out of date.
func (k tpmKey) CheckToken(token json.RawMessage) error {
	if k.refused != nil {
		return nil
	}
	return k.Provider.CheckToken(token)
}

// Recover implements [keys.Provider].
func (k tpmKey) Recover(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
	p, _, err := k.RecoverFor(ctx, req, token)
	return p, err
}

// RecoverFor implements [keys.Witness].
func (k tpmKey) RecoverFor(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, string, error) {
	if err := k.mayOpen(); err != nil {
		return nil, "", fmt.Errorf("nothing is unsealed: %w", err)
	}
	return k.Provider.RecoverFor(ctx, req, token)
}
