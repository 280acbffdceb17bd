package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/disk"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/provide"
	"github.com/cryptctl/cryptctl/secret"
)

// maxKeyFile is cryptsetup's limit for key files.
const maxKeyFile = 8 << 20

// keySource is where the keys of a command come from: a machine configuration,
// key files, or the terminal when it is the only source left.
type keySource struct {
	files    []string
	volume   string
	nodeUUID string
	strict   bool
	salt     string
	keyFile  string
	limit    string
	tpm      tpmTarget
	pin      pinSource
	kms      kmsFlags
}

// kmsFlags say how key servers are asked.
type kmsFlags struct{ wait time.Duration }

func (k *kmsFlags) flags(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&k.wait, "kms-timeout", keys.DefaultTimeout, "`TIME` that a key server has for one key")
}

func (k *kmsFlags) options() kms.Options { return kms.Options{Budget: k.wait} }

func (k *keySource) flags(cmd *cobra.Command) {
	k.configFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&k.keyFile, "key-file", "", "`FILE` with a passphrase that opens the volume, every byte of it; - is stdin")
	f.StringVar(&k.limit, "max-kdf-memory", "", "refuse key derivations that need more than this `SIZE` (default 4G)")
}

func (k *keySource) configFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&k.files, "file", "f", nil, "machine configuration `FILE` (repeatable; - is stdin)")
	f.StringVar(&k.volume, "volume", "", "`NAME` of the volume in the configuration: STATE, EPHEMERAL, u-data")
	f.StringVar(&k.nodeUUID, "node-uuid", "", "the node's `UUID` for nodeID keys, taken as it is: lower case, as the node has it (default: what the firmware says)")
	f.BoolVar(&k.strict, "strict-node-uuid", false, "refuse node UUIDs that are known junk or not random when making a nodeID key")
	k.tpm.flags(cmd)
	k.pin.flag(cmd)
	k.kms.flags(cmd)
	f.StringVar(&k.salt, "state-salt", "", "the encryption-salt.yaml `FILE` from STATE, for keys with lockToState")
	cmd.PreRunE = func(*cobra.Command, []string) error { return k.oneStdin() }
}

// oneStdin refuses a command line that wants more than one thing from stdin. The
// other files are those of the command.
func (k *keySource) oneStdin(others ...string) error {
	secrets := unasked(append(others, k.keyFile, k.pin.file)...)
	return oneStdin(append(secrets, k.files...)...)
}

// limits returns what a header may make us spend.
func (k *keySource) limits() (kdf.Limits, error) {
	if k.limit == "" {
		return kdf.Limits{}, nil
	}
	n, err := disk.ParseSize(k.limit)
	if err != nil {
		return kdf.Limits{}, usageError("--max-kdf-memory: %w", err)
	}
	if n < 1<<10 || n > 4<<40-1<<10 {
		return kdf.Limits{}, usageError("--max-kdf-memory must be 1K to 4T")
	}
	return kdf.Limits{MaxMemoryKiB: uint32(n >> 10)}, nil
}

// wanted is what the configuration says of one volume.
type wanted struct {
	config.Encryption
	keys []keys.Key
	free func() // wipes the passphrases
}

// load reads the configuration and turns its entries into providers.
func (k *keySource) load(ctx context.Context) (*wanted, error) {
	if len(k.files) == 0 {
		return nil, usageError("a machine configuration is needed: --file FILE --volume NAME")
	}
	if k.volume == "" {
		return nil, usageError("--volume says which volume of the configuration is meant, such as STATE")
	}
	c, err := awaitInput(ctx, func() (*config.Config, error) { return config.ReadFiles(k.files...) }, k.files...)
	if err != nil {
		return nil, err
	}
	enc, err := c.Volume(k.volume)
	if err != nil {
		c.Wipe()
		return nil, err
	}
	w := &wanted{Encryption: enc, free: c.Wipe}
	var salt *secret.Bytes
	if k.salt != "" {
		if salt, err = config.ReadSalt(k.salt); err != nil {
			c.Wipe()
			return nil, err
		}
		w.free = func() { c.Wipe(); salt.Wipe() }
	}
	m, err := k.machine(salt)
	if err != nil {
		w.free()
		return nil, err
	}
	if k.volume != "STATE" { // which is opened before the configuration is there
		m.TrustedRoots = c.TrustedRoots
	}
	w.keys = m.Keys(enc.Keys)
	return w, nil
}

// machine is what the keys depend on, as the flags say it.
func (k *keySource) machine(salt *secret.Bytes) (provide.Machine, error) {
	m := provide.Machine{UUID: k.nodeUUID, Strict: k.strict, Salt: salt, NoSalt: "give STATE's encryption-salt.yaml with --state-salt", PIN: k.pin.get, KMS: k.kms.options()}
	if m.UUID == "" {
		m.UUID = provide.FirmwareUUID()
	}
	var err error
	m.TPM, err = k.tpm.dial()
	m.Boot = (&sealedKey{tpmTarget: k.tpm}).boot
	return m, err
}

// readKey reads a passphrase from a file, or from stdin for "-". Every byte
// counts, as in cryptsetup: a newline at the end is part of it.
func readKey(ctx context.Context, path string) (*secret.Bytes, error) {
	p, err := readInput(ctx, path, maxKeyFile)
	switch {
	case path == "-":
		return nonEmpty(p, err)("stdin")
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("key file %s does not exist", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("key file: %w", err)
	}
	return nonEmpty(p, err)(path)
}

func nonEmpty(p *secret.Bytes, err error) func(string) (*secret.Bytes, error) {
	return func(name string) (*secret.Bytes, error) {
		if err != nil {
			return nil, fmt.Errorf("read the passphrase from %s: %w", name, err)
		}
		if p.Len() == 0 {
			return nil, fmt.Errorf("%s holds no passphrase: it is empty", name)
		}
		return p, nil
	}
}

// ask reads a passphrase from the terminal without echo; instead says what to do
// without a terminal. A signal ends the wait, and the echo is back then.
func ask(ctx context.Context, prompt, instead string) (*secret.Bytes, error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, usageError("%s", instead)
	}
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	fmt.Fprint(os.Stderr, prompt)
	p, err := interruptible(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	term.Restore(fd, before)
	fmt.Fprintln(os.Stderr)
	return nonEmpty(secret.Take(p), err)("the terminal")
}

// isAsked reports whether a key comes from the terminal: without a key file, and
// with - where stdin is one, since reading it would show what is typed.
func isAsked(keyFile string) bool {
	return keyFile == "" || keyFile == "-" && term.IsTerminal(int(os.Stdin.Fd()))
}

// unasked returns the files whose content is not asked for on the terminal.
func unasked(keyFiles ...string) []string { return slices.DeleteFunc(keyFiles, isAsked) }

// noKey is what a command without any key says.
const noKey = "no key was given: use --key-file, or --file and --volume"

// askNew asks twice.
func askNew(ctx context.Context, instead string) (*secret.Bytes, error) {
	p, err := ask(ctx, "New passphrase: ", instead)
	if err != nil {
		return nil, err
	}
	again, err := ask(ctx, "the same again: ", instead)
	if err != nil {
		p.Wipe()
		return nil, err
	}
	defer again.Wipe()
	if !again.Equal(p) {
		p.Wipe()
		return nil, errors.New("the two passphrases differ; nothing was changed")
	}
	return p, nil
}

// passphrase returns the one passphrase of commands without a configuration.
func (k *keySource) passphrase(ctx context.Context) (*secret.Bytes, error) {
	if isAsked(k.keyFile) {
		return ask(ctx, "Passphrase: ", noKey)
	}
	return readKey(ctx, k.keyFile)
}

// configured reports whether the keys come from a configuration. One that would
// be passed over for the other is a mistake.
func (k *keySource) configured() (bool, error) {
	if len(k.files) == 0 && k.volume == "" {
		return false, nil
	}
	if k.keyFile != "" {
		return false, usageError("--key-file and a configuration (--file, --volume) both say which keys to try; give one of them")
	}
	return true, nil
}
