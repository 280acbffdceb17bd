package kdf_test

import (
	"encoding/hex"
	"errors"
	"testing"

	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

func pbkdf2(hash string, iterations uint32) kdf.Cost {
	return kdf.Cost{Kind: kdf.PBKDF2, Hash: hash, Iterations: iterations}
}

func argon2(kind kdf.Kind, time, memory, cpus uint32) kdf.Cost {
	return kdf.Cost{Kind: kind, Time: time, MemoryKiB: memory, CPUs: cpus}
}

// TestVectors holds the published answers that this interface can ask for. The
// vectors of RFC 9106 itself have a secret and associated data, which LUKS2 does
// not use.
func TestVectors(t *testing.T) {
	const (
		rfc6070 = "RFC 6070, section 2"
		rfc7914 = "RFC 7914, section 11"
		phc     = "phc-winner-argon2, src/test.c"
		openssl = "hashlib and OpenSSL 3, by way of Python"
	)
	for _, tt := range []struct {
		source     string
		cost       kdf.Cost
		word, salt string
		want       string
	}{
		{rfc6070, pbkdf2("sha1", 1), "password", "salt", "0c60c80f961f0e71f3a9b524af6012062fe037a6"},
		{rfc6070, pbkdf2("sha1", 2), "password", "salt", "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"},
		{rfc6070, pbkdf2("sha1", 4096), "password", "salt", "4b007901b765489abead49d926f721d065a429c1"},
		{rfc6070, pbkdf2("sha1", 4096), "passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt", "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"},
		{rfc6070, pbkdf2("sha1", 4096), "pass\x00word", "sa\x00lt", "56fa6aa75548099dcc37d7f03425e0c3"},
		{rfc7914, pbkdf2("sha256", 1), "passwd", "salt", "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"},
		{rfc7914, pbkdf2("sha256", 80000), "Password", "NaCl", "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d"},

		{openssl, pbkdf2("sha1", 1000), "password", "somesalt", "9e1a4a773dd4084fce51e0b468bc1bf119dee57f5438a997b9308a491c2e76aa"},
		{openssl, pbkdf2("sha224", 1000), "password", "somesalt", "e8908e24b4e7b5c0da473e59dd939ac573ca23c714d7731993799a3ad9fe11c1"},
		{openssl, pbkdf2("sha256", 1000), "password", "somesalt", "8f801ad788a752d3a1ed283f0fb847e78a21ca6b873500f8f9c71f85ea465806"},
		{openssl, pbkdf2("sha384", 1000), "password", "somesalt", "2f211ddc7acaa5ca636362949ba472bd732fdc4b065046e69602d2d085174ad2"},
		{openssl, pbkdf2("sha512", 1000), "password", "somesalt", "a40ad3b13f006a1cf1988e4e65cc4a370da8e25f6a88ac1ce736d647c6e8f3dd"},
		{openssl, pbkdf2("sha3-224", 1000), "password", "somesalt", "bf16f9256a54d69e1910e9bcb962a42faab748341fdf27bb09a8f24a0d910cdf"},
		{openssl, pbkdf2("sha3-256", 1000), "password", "somesalt", "b29e06d304226e95c9d7f831ef43ef5c87a77b4e88bc0bb13a15e88667495875"},
		{openssl, pbkdf2("sha3-384", 1000), "password", "somesalt", "e130a161af5d1c4af91d6b0f56c956158e9addda26bec5aed45e38bd2512d82a"},
		{openssl, pbkdf2("sha3-512", 1000), "password", "somesalt", "1080677a963f6d53bbca71413dc5203dec62482ee1bcfaef7a301c2a2b4a60f6"},
		{openssl, pbkdf2("blake2b-512", 1000), "password", "somesalt", "187b5173fc0ef5464fac5ed24d7259c0621f7fc94a0ccaa9c59f12a37f9e8f8d"},
		{openssl, pbkdf2("blake2s-256", 1000), "password", "somesalt", "29d7aaeaff3b8c9a4a121270cb48410adfa16a32842c4c21915866d5bfdf139d"},

		{phc, argon2(kdf.Argon2id, 2, 65536, 1), "password", "somesalt", "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"},
		{phc, argon2(kdf.Argon2id, 2, 256, 1), "password", "somesalt", "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"},
		{phc, argon2(kdf.Argon2id, 2, 256, 2), "password", "somesalt", "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"},
		{phc, argon2(kdf.Argon2i, 2, 256, 1), "password", "somesalt", "89e9029f4637b295beb027056a7336c414fadd43f6b208645281cb214a56452f"},
		{phc, argon2(kdf.Argon2i, 2, 256, 2), "password", "somesalt", "4ff5ce2769a1d7f4c8a491df09d41a9fbe90e5eb02155a13e4c01e20cd4eab61"},
		{phc, argon2(kdf.Argon2i, 1, 65536, 1), "password", "somesalt", "d168075c4d985e13ebeae560cf8b94c3b5d8a16c51916b6f4ac2da3ac11bbecf"},
		{openssl, argon2(kdf.Argon2id, 3, 32, 4), "password", "somesalt", "bb0cc80a3e671149526915418c6eefe761bb19d5d2d567a017703e0cea6ab05c"},
		{openssl, kdf.Light(), "password", "somesalt", "c9aac19395609f91a418cbee64c49f9457df33077e91b35437b69f3248281cd8"},
	} {
		t.Run(tt.source+", "+tt.cost.String(), func(t *testing.T) {
			p := kdf.Params{Cost: tt.cost, Salt: []byte(tt.salt)}
			key, err := p.Derive(t.Context(), secret.Copy([]byte(tt.word)), len(tt.want)/2, kdf.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			defer key.Wipe()
			if got := hex.EncodeToString(key.Bytes()); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestNewHash(t *testing.T) {
	for name, size := range map[string]int{
		"sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64,
		"sha3-224": 28, "sha3-256": 32, "sha3-384": 48, "sha3-512": 64, "blake2b-512": 64, "blake2s-256": 32,
	} {
		newHash, err := kdf.NewHash(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := newHash().Size(); got != size {
			t.Errorf("%s has %d bytes, want %d", name, got, size)
		}
	}
	for _, name := range []string{"", "md5", "SHA256", "sha-256", "ripemd160", "whirlpool", "sha256 "} {
		if newHash, err := kdf.NewHash(name); newHash != nil || !errors.Is(err, kdf.ErrUnsupported) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
