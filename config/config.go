package config

import (
	"fmt"
	"strings"

	"github.com/cryptctl/cryptctl/logging"
	"github.com/cryptctl/cryptctl/role"
	"github.com/cryptctl/cryptctl/secret"
)

// Config is the disk encryption of one machine, and what else it says that the
// project acts on.
type Config struct {
	Volumes []Encryption // those to encrypt, in the order of the sources
	// Declared are the volumes that have a document of their own, encrypted or
	// not. STATE and EPHEMERAL exist without one.
	Declared []Declared

	// Logging is where logs go, the kernel's too.
	Logging []logging.Destination
	// TrustedRoots are certificates, as PEM, of authorities that are trusted beside
	// the system's.
	TrustedRoots []byte
	// Access is machine.features.rbac, for a daemon whose API takes certificates.
	Access role.Access
	// LeftOut are the mistakes of a configuration that [ReadStored] read, without
	// what has them.
	LeftOut Errors
}

// Declared is a volume that a document names.
type Declared struct {
	Volume     string // its id, as in Encryption
	Filesystem string // "xfs" or "ext4" when the document says so; "swap" for swap; "none" for a raw volume
}

// Encryption is the encryption one volume shall have, from whichever dialect.
type Encryption struct {
	Volume        string   // volume id: STATE, EPHEMERAL, IMAGECACHE, ETCD, CRI, KUBELET, LOG, u-<name>, r-<name>, s-<name>
	Source        Position // where the block starts
	Path          string   // of the block in its document: "encryption", or "machine.systemDiskEncryption.state"
	Provider      string   // always "luks2"
	Cipher        string   // as the kernel names it; "aes-xts-plain64" when the file has none
	KeySize       int      // of the volume key, in bits: 256 or 512
	BlockSize     int      // encryption sector in bytes: 512, 1024, 2048 or 4096; 0 = not set, the engine chooses
	Options       []string // of no_read_workqueue, no_write_workqueue, same_cpu_crypt; each at most once
	AllowDiscards bool
	Keys          []Key // 1 to 32, sorted by slot
}

// Key is one key slot of a volume. Exactly one of Static, NodeID, KMS and TPM
// is non-nil.
type Key struct {
	Slot        int      // 0 to 31, each once per volume
	Source      Position // where the key's entry starts
	LockToState bool     // the passphrase is followed by the salt of [ReadSalt]

	Static *Static
	NodeID *NodeID
	KMS    *KMS
	TPM    *TPM
}

// Static is a key with its passphrase in the file.
type Static struct {
	Passphrase *secret.Bytes // never empty
}

// NodeID is a key made of the node's UUID and the volume id.
type NodeID struct{}

// KMS is a key sealed by a key server.
type KMS struct {
	Endpoint string // a URL: grpc:// is plaintext, https:// and grpcs:// are TLS

	// What Talos does not have:

	Endpoints   []string      // more servers that share their keys with the first, in the order in which they are tried
	Authorities []byte        // PEM: who may issue the servers' certificates; nil = those that the system trusts
	Certificate []byte        // PEM: what the node shows the servers; nil = nothing
	Key         *secret.Bytes // PEM: of the certificate
	ServerName  string        // that the servers' certificates must be for; "" = the host of the endpoint
	TLS12       bool          // servers that have no TLS 1.3 will do
}

// TPM is a key sealed by the machine's TPM.
type TPM struct {
	CheckSecurebootStatusOnEnroll bool
	PCRs                          []int // sorted, each once; [7] when the file has no options; empty = the signed PCR 11 policy alone

	// What Talos does not have:

	CheckSecurebootStatusOnUnseal bool
	Format                        string // of new tokens: "cryptctl", "talos" or "systemd"; "" = new ones are our own, and others stay
	PIN                           bool   // the TPM wants a PIN, which is asked for
	NoLatch                       bool   // latch: false: the key can be had after the boot as well
	Reseal                        bool   // make the key anew when it is stale, another key opened the volume, and Secure Boot is on
	SigningKey                    []byte // PEM, RSA: who must have signed the PCR 11 policy; nil = whoever the boot image names, if anyone
	AllowWeakPolicy               bool   // neither a PCR nor a PIN
}

// Kind returns the name of the key's kind as the file has it: "static",
// "nodeID", "kms" or "tpm"; "" for a Key that [Read] did not make.
func (k Key) Kind() string {
	switch {
	case k.Static != nil:
		return "static"
	case k.NodeID != nil:
		return "nodeID"
	case k.KMS != nil:
		return "kms"
	case k.TPM != nil:
		return "tpm"
	}
	return ""
}

// Volume returns the encryption of the volume with this id. The result shares
// its passphrases with c.
func (c *Config) Volume(name string) (Encryption, error) {
	names := make([]string, len(c.Volumes))
	for i, v := range c.Volumes {
		if v.Volume == name {
			return v, nil
		}
		names[i] = v.Volume
	}
	if len(names) == 0 {
		return Encryption{}, fmt.Errorf("no encryption for volume %s: the configuration encrypts no volume; "+
			"add a volume document with an encryption block, or read the right file", shown(name))
	}
	fix := "check the name, or add a volume document with an encryption block"
	if near := nearest(name, names); near != "" {
		fix = "did you mean " + near + "?"
	}
	return Encryption{}, fmt.Errorf("no encryption for volume %s: the configuration encrypts %s; %s",
		shown(name), strings.Join(names, ", "), fix)
}

// Wipe zeroes all passphrases and private keys. The rest of the configuration stays readable.
func (c *Config) Wipe() {
	for _, v := range c.Volumes {
		v.wipe()
	}
}

func (e Encryption) wipe() {
	for _, k := range e.Keys {
		if k.Static != nil {
			k.Static.Passphrase.Wipe()
		}
		if k.KMS != nil {
			k.KMS.Key.Wipe()
		}
	}
}
