package meta

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cryptctl/cryptctl/secret"
)

// The JSON is that of Talos' Go structs, which have no JSON tags
// (pkg/machinery/config/types/block/encryption.go): names and order of the
// members are those of the fields. Talos before 1.11 wrote another struct
// (config/types/v1alpha1) with an empty provider, KeySlot after KeyKMS, and no
// KeyLockToSTATE and EncryptionAllowDiscards. One reader does for both.
type (
	wireEncryption struct {
		EncryptionProvider      *string
		EncryptionKeys          []json.RawMessage
		EncryptionCipher        string
		EncryptionKeySize       uint
		EncryptionBlockSize     uint64
		EncryptionPerfOptions   []string
		EncryptionAllowDiscards *bool
	}
	wireKey struct {
		KeySlot        *int
		KeyStatic      *wireStatic
		KeyNodeID      *struct{}
		KeyKMS         *wireKMS
		KeyTPM         *wireTPM
		KeyLockToSTATE *bool
	}
	wireStatic struct{ KeyData *passphrase }
	wireKMS    struct{ KMSEndpoint string }
	wireTPM    struct {
		TPMOptions                       *wireTPMOptions
		TPMCheckSecurebootStatusOnEnroll *bool
	}
	wireTPMOptions struct{ PCRs []int }
)

// passphrase keeps the bytes of a JSON string out of Go strings.
type passphrase struct{ bytes *secret.Bytes }

func (p *passphrase) UnmarshalText(text []byte) error {
	p.bytes = secret.Copy(text)
	return nil
}

func (p *passphrase) MarshalText() ([]byte, error) { return p.bytes.Bytes(), nil }

// ParseEncryption reads the value of [StateEncryptionConfig] in both dialects of
// Talos. It returns nil when STATE is not encrypted. Members that are not known
// are passed over, as Talos does; what would be understood differently by others
// is refused. Errors show nothing of a passphrase.
func ParseEncryption(data []byte) (*Encryption, error) {
	e, err := parseEncryption(data)
	if err != nil {
		return nil, fmt.Errorf("the encryption config of STATE in META (%s, tag 0x%02x): %w", StateEncryptionConfig, uint8(StateEncryptionConfig), err)
	}
	return e, nil
}

func parseEncryption(data []byte) (*Encryption, error) {
	if len(data) > Capacity {
		return nil, fmt.Errorf("%d bytes are more than META holds", len(data))
	}
	if !json.Valid(data) {
		return nil, errors.New("it is not JSON")
	}
	if at, twice := duplicateMember(data); twice {
		return nil, fmt.Errorf("the member at byte %d is there twice", at)
	}
	var w *wireEncryption
	if err := unmarshal(data, &w); err != nil || w == nil {
		return nil, err
	}
	encrypted, err := w.encrypted()
	if err != nil || !encrypted {
		return nil, err
	}
	if n := len(w.EncryptionKeys); n > maxSlots {
		return nil, fmt.Errorf("it has %d keys; LUKS2 has room for %d", n, maxSlots)
	}
	e := &Encryption{
		Cipher: w.EncryptionCipher, KeySize: w.EncryptionKeySize, BlockSize: w.EncryptionBlockSize,
		PerfOptions: w.EncryptionPerfOptions, AllowDiscards: isTrue(w.EncryptionAllowDiscards),
	}
	for i, raw := range w.EncryptionKeys {
		k, err := parseKey(raw)
		e.Keys = append(e.Keys, k)
		if err != nil {
			e.Wipe()
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
	}
	if err := e.check(); err != nil {
		e.Wipe()
		return nil, err
	}
	return e, nil
}

// encrypted reads the provider.
func (w *wireEncryption) encrypted() (bool, error) {
	if w.EncryptionProvider == nil {
		return false, errors.New("it names no provider")
	}
	switch provider := strings.ToLower(*w.EncryptionProvider); {
	case provider == "luks2", provider == "":
		return true, nil
	case provider == "none" && len(w.EncryptionKeys) == 0:
		return false, nil
	case provider == "none":
		return false, errors.New("the provider is none, but there are keys")
	default:
		return false, fmt.Errorf("the provider %.40q is not known; it is luks2, or none", provider)
	}
}

// parseKey returns what it read beside an error too, to be wiped.
func parseKey(raw []byte) (k Key, err error) {
	var w wireKey
	err = unmarshal(raw, &w)
	if w.KeyStatic != nil {
		k.Static = secret.New(0)
		if w.KeyStatic.KeyData != nil {
			k.Static = w.KeyStatic.KeyData.bytes
		}
	}
	if err != nil {
		return k, err
	}
	if w.KeySlot == nil {
		return k, errors.New("it names no slot")
	}
	k.Slot, k.NodeID, k.LockToState = *w.KeySlot, w.KeyNodeID != nil, isTrue(w.KeyLockToSTATE)
	if w.KeyKMS != nil {
		k.KMS = &KMS{Endpoint: w.KeyKMS.KMSEndpoint}
	}
	if w.KeyTPM != nil {
		k.TPM = &TPM{CheckSecureboot: isTrue(w.KeyTPM.TPMCheckSecurebootStatusOnEnroll)}
		if o := w.KeyTPM.TPMOptions; o != nil {
			k.TPM.PCRs = append([]int{}, o.PCRs...)
		}
	}
	if len(k.kinds()) == 0 {
		k.Unknown = unknownKind(raw)
	}
	return k, nil
}

// unknownKind returns the first name of a member that holds an object, as all
// kinds of keys do.
func unknownKind(raw []byte) string {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if members[name][0] == '{' {
			return fmt.Sprintf("%.40s", name)
		}
	}
	return ""
}

// Encode writes the encryption as Talos 1.11 to 1.13 does, byte for byte. The
// result holds static passphrases in clear and belongs nowhere but in META.
func (e *Encryption) Encode() ([]byte, error) {
	if e == nil {
		return []byte("null"), nil
	}
	data, err := e.encode()
	if err != nil {
		return nil, fmt.Errorf("write the encryption config of STATE for META: %w", err)
	}
	return data, nil
}

func (e *Encryption) encode() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	provider := "luks2"
	w := wireEncryption{
		EncryptionProvider: &provider,
		EncryptionCipher:   e.Cipher, EncryptionKeySize: e.KeySize, EncryptionBlockSize: e.BlockSize,
		EncryptionPerfOptions: e.PerfOptions, EncryptionAllowDiscards: trueOrNull(e.AllowDiscards),
	}
	for i, k := range e.Keys {
		if k.Unknown != "" {
			return nil, fmt.Errorf("key %d (slot %d) is of the kind %s, which is not known here", i+1, k.Slot, k.Unknown)
		}
		if !k.utf8() {
			// JSON cannot hold it: what is read back would be another one.
			return nil, fmt.Errorf("key %d (slot %d) has text that is not UTF-8", i+1, k.Slot)
		}
		raw, err := json.Marshal(k.wire())
		if err != nil {
			return nil, err
		}
		w.EncryptionKeys = append(w.EncryptionKeys, raw)
	}
	if !utf8.ValidString(e.Cipher + strings.Join(e.PerfOptions, "")) {
		return nil, errors.New("the cipher or an option is not UTF-8")
	}
	return json.Marshal(w)
}

func (k Key) utf8() bool {
	return utf8.Valid(k.Static.Bytes()) && (k.KMS == nil || utf8.ValidString(k.KMS.Endpoint))
}

func (k Key) wire() wireKey {
	w := wireKey{KeySlot: &k.Slot, KeyLockToSTATE: trueOrNull(k.LockToState)}
	if k.Static != nil {
		w.KeyStatic = &wireStatic{&passphrase{k.Static}}
	}
	if k.NodeID {
		w.KeyNodeID = &struct{}{}
	}
	if k.KMS != nil {
		w.KeyKMS = &wireKMS{k.KMS.Endpoint}
	}
	if k.TPM != nil {
		w.KeyTPM = &wireTPM{TPMCheckSecurebootStatusOnEnroll: trueOrNull(k.TPM.CheckSecureboot)}
		if k.TPM.PCRs != nil {
			w.KeyTPM.TPMOptions = &wireTPMOptions{k.TPM.PCRs}
		}
	}
	return w
}

func isTrue(b *bool) bool { return b != nil && *b }

// trueOrNull is what Talos makes of a setting that is true or left out.
func trueOrNull(b bool) *bool {
	if !b {
		return nil
	}
	return &b
}

// unmarshal is [json.Unmarshal] with errors that show no values.
func unmarshal(data []byte, into any) error {
	err := json.Unmarshal(data, into)
	if te := (*json.UnmarshalTypeError)(nil); errors.As(err, &te) {
		what, _, _ := strings.Cut(te.Value, " ") // then a number may follow
		if te.Field == "" {
			return fmt.Errorf("it is of the JSON type %s", what)
		}
		return fmt.Errorf("%s is of the JSON type %s or out of range", te.Field, what)
	}
	if err != nil {
		return errors.New("it is not JSON")
	}
	return nil
}

// duplicateMember finds a member that stands twice in an object of valid JSON:
// which of the two counts differs from reader to reader. Go takes names that
// differ in case only for the same.
func duplicateMember(data []byte) (at int, twice bool) {
	var open []map[string]bool // members of the objects around; nil for arrays
	name := false              // a member's name comes next
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{':
			open, name = append(open, map[string]bool{}), true
		case '[':
			open, name = append(open, nil), false
		case '}', ']':
			open, name = open[:len(open)-1], false
		case ',':
			name = open[len(open)-1] != nil
		case ':':
			name = false
		case '"':
			start := i
			for i++; data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
			if !name {
				continue
			}
			members, folded := open[len(open)-1], foldName(data[start:i+1])
			if members[folded] {
				return start, true
			}
			members[folded] = true
		}
	}
	return 0, false
}

// foldName folds the case of a quoted name as package json does.
func foldName(quoted []byte) string {
	var name string
	_ = json.Unmarshal(quoted, &name) // valid already
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, name)
}
