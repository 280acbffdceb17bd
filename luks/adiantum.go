package luks

import (
	"encoding/binary"

	"lukechampine.com/adiantum"
	"lukechampine.com/adiantum/hbsh"

	"github.com/cryptctl/cryptctl/secret"
)

// The ciphers of the Adiantum family (Crowley and Biggers, "Adiantum:
// length-preserving encryption for entry-level processors"), by their stream
// cipher. The block cipher is AES-256, the hash NH with Poly1305.
const (
	adiantum12 = "xchacha12,aes-adiantum-plain64"
	adiantum20 = "xchacha20,aes-adiantum-plain64"

	adiantumKey   = 32 // bytes
	adiantumTweak = 32 // bytes of IV that Linux gives it (crypto/adiantum.c, TWEAK_SIZE)
)

// adiantumSectors opens keyslot areas that other tools wrote; we write none. As
// with XTS, what is made of the key lies in memory that is not locked.
type adiantumSectors struct{ mode *hbsh.HBSH }

func newAdiantum(name string, kek *secret.Bytes) adiantumSectors {
	if name == adiantum20 {
		return adiantumSectors{adiantum.New20(kek.Bytes())}
	}
	return adiantumSectors{adiantum.New(kek.Bytes())}
}

// Encrypt encrypts one sector.
func (a adiantumSectors) Encrypt(dst, src []byte, sector uint64) {
	copy(dst, src)
	a.mode.Encrypt(dst, plain64(sector))
}

// Decrypt decrypts one sector.
func (a adiantumSectors) Decrypt(dst, src []byte, sector uint64) {
	copy(dst, src)
	a.mode.Decrypt(dst, plain64(sector))
}

// plain64 is the sector number, least significant byte first, in an IV of zeros.
func plain64(sector uint64) []byte {
	iv := make([]byte, adiantumTweak)
	binary.LittleEndian.PutUint64(iv, sector)
	return iv
}
