package keys_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/keys/keystest"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/secret"
)

const (
	nodeUUID  = "5b1ae3b1-8a6e-4c0f-9d6e-2d1f0c8a7b64"
	passwords = "correct horse battery staple"
)

func salt(n int) *secret.Bytes {
	s := secret.New(n)
	for i := range s.Bytes() {
		s.Bytes()[i] = byte(i)
	}
	return s
}

// TestProviders runs the suite on every provider of this package.
func TestProviders(t *testing.T) {
	down := func() keys.Provider {
		s := keystest.NewSealer()
		s.Fail(keystest.Fault{Err: fmt.Errorf("%w: the server is down", keys.ErrUnavailable)})
		return s
	}
	t.Run("static", func(t *testing.T) {
		keystest.Provider(t, func() keys.Provider { return keys.Static{Passphrase: phrase(passwords)} }, keystest.Options{
			Failing: []keystest.Failing{
				{Name: "empty", New: func() keys.Provider { return keys.Static{Passphrase: secret.New(0)} }, Class: keys.ErrDenied},
				{Name: "none", New: func() keys.Provider { return keys.Static{} }, Class: keys.ErrDenied},
			},
			Secrets: []string{passwords},
		})
	})
	t.Run("nodeID", func(t *testing.T) {
		keystest.Provider(t, func() keys.Provider { return keys.NodeID{UUID: nodeUUID, Strict: true} }, keystest.Options{
			Failing: []keystest.Failing{
				{Name: "none", New: func() keys.Provider { return keys.NodeID{} }, Class: keys.ErrDenied},
				{Name: "zeros", New: func() keys.Provider { return keys.NodeID{UUID: strings.Repeat("0", 36)} }, Class: keys.ErrDenied},
			},
		})
	})
	t.Run("salted static", func(t *testing.T) {
		keystest.Provider(t, func() keys.Provider {
			return keys.Salted{Provider: keys.Static{Passphrase: phrase(passwords)}, Salt: salt(32)}
		}, keystest.Options{
			Failing: []keystest.Failing{
				{Name: "no salt", New: func() keys.Provider {
					return keys.Salted{Provider: keys.Static{Passphrase: phrase(passwords)}}
				}, Class: keys.ErrUnavailable},
				{Name: "no passphrase", New: func() keys.Provider { return keys.Salted{Provider: keys.Static{}, Salt: salt(32)} }, Class: keys.ErrDenied},
			},
			Secrets: []string{passwords, string(salt(32).Bytes())},
		})
	})
	t.Run("salted sealer", func(t *testing.T) {
		s := keystest.NewSealer()
		keystest.Provider(t, func() keys.Provider { return keys.Salted{Provider: s, Salt: salt(32)} }, keystest.Options{
			Tokens: []string{keystest.TokenType}, Random: true, Bound: true, Waits: true,
			Failing: []keystest.Failing{
				{Name: "down", New: func() keys.Provider { return keys.Salted{Provider: down(), Salt: salt(32)} }, Class: keys.ErrUnavailable},
				{Name: "short salt", New: func() keys.Provider { return keys.Salted{Provider: s, Salt: salt(31)} }, Class: keys.ErrUnavailable},
			},
			Secrets: []string{string(salt(32).Bytes())},
		})
	})
}

// TestBytes fixes the passphrases byte by byte: they must be Talos', or its
// disks do not open.
func TestBytes(t *testing.T) {
	const talos = "12345678-1234-5678-1234-567812345678" // of its own test
	static := func(s string) keys.Provider { return keys.Static{Passphrase: phrase(s)} }
	salted := string(salt(32).Bytes())
	tests := []struct {
		name     string
		provider keys.Provider
		volume   string
		want     string
	}{
		{"static", static("AAAA"), "STATE", "AAAA"},
		{"static with spaces and a newline", static(" a b \n"), "STATE", " a b \n"},
		{"static with a NUL", static("a\x00b"), "STATE", "a\x00b"},
		{"static in UTF-8", static("pässwörd ☃"), "STATE", "p\xc3\xa4ssw\xc3\xb6rd \xe2\x98\x83"},
		{"static that is not UTF-8", static("\xff\xfe"), "STATE", "\xff\xfe"},
		{"static of one byte", static("\x00"), "STATE", "\x00"},
		{"static of 64 KiB", static(strings.Repeat("x", 64<<10)), "STATE", strings.Repeat("x", 64<<10)},
		{"nodeID", keys.NodeID{UUID: talos}, "STATE", talos + "STATE"},
		{"nodeID of EPHEMERAL", keys.NodeID{UUID: talos}, "EPHEMERAL", talos + "EPHEMERAL"},
		{"nodeID of a user volume", keys.NodeID{UUID: talos}, "u-data", "12345678-1234-5678-1234-567812345678u-data"},
		{"nodeID in upper case", keys.NodeID{UUID: strings.ToUpper(nodeUUID)}, "STATE", "5B1AE3B1-8A6E-4C0F-9D6E-2D1F0C8A7B64STATE"},
		{"nodeID that META overrides", keys.NodeID{UUID: "rack 7, unit 3"}, "STATE", "rack 7, unit 3STATE"},
		{"salted", keys.Salted{Provider: static("AAAA"), Salt: salt(32)}, "STATE", "AAAA" + salted},
		{"salted nodeID", keys.Salted{Provider: keys.NodeID{UUID: talos}, Salt: salt(32)}, "u-data", talos + "u-data" + salted},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req := keys.Request{UUID: uuid, Volume: test.volume, Slot: 3}
			p, token, err := test.provider.Enroll(t.Context(), req)
			if err != nil || token != nil || string(p.Bytes()) != test.want {
				t.Errorf("Enroll gives %q, token %s, error %v", p.Bytes(), token, err)
			}
			p, err = test.provider.Recover(t.Context(), req, nil)
			if err != nil || string(p.Bytes()) != test.want {
				t.Errorf("Recover gives %q, error %v", p.Bytes(), err)
			}
		})
	}
}

// repeated is a UUID-shaped text in which one digit occurs n times, in which no
// other does so often.
func repeated(digit byte, n int) string {
	const others = "123456789abcdef123456789abcdef"
	b := []byte("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")
	next := 0
	for i := range b {
		switch {
		case b[i] == '-':
		case n > 0:
			b[i], n = digit, n-1
		default:
			b[i], next = others[next], next+1
		}
	}
	return string(b)
}

// TestNodeIDEntropy is the rule of Talos: fewer than half of the characters plus
// one may be the same. It holds for Enroll and Recover.
func TestNodeIDEntropy(t *testing.T) {
	tests := []struct {
		name, uuid string
		want       string // in the error; empty for none
	}{
		{"random", nodeUUID, ""},
		{"17 of 36", repeated('0', 17), ""},
		{"18 of 36", repeated('0', 18), ""},
		{"19 of 36", repeated('0', 19), `is mostly '0'`},
		{"20 of 36", repeated('0', 20), `is mostly '0'`},
		{"zeros", "00000000-0000-0000-0000-000000000000", `is mostly '0'`},
		{"ones", "ffffffff-ffff-ffff-ffff-ffffffffffff", `is mostly 'f'`},
		{"upper and lower case are two characters", "ffffffff-ffff-fffF-FFFF-FFFFFFFFFFFF", ""},
		{"zeros but the end", "00000000-0000-0000-0000-567812345678", `is mostly '0'`},
		{"AMI's default", "03000200-0400-0500-0006-000700080009", `is mostly '0'`},
		{"two characters, 16 each", "fefefefe-fefe-fefe-fefe-fefefefefefe", ""},
		{"a pattern", "12345678-1234-5678-1234-567812345678", ""},
		{"dashes count too", "a-a-a-", ""},
		{"dashes over half", "---a-a", `is mostly '-'`},
		{"two characters, one each", "ab", ""},
		{"one character", "a", `is mostly 'a'`},
		{"3 of 5", "aaabc", `is mostly 'a'`},
		{"2 of 5", "aabcd", ""},
		{"empty", "", "the node has no UUID"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := keys.NodeID{UUID: test.uuid}
			req := keys.Request{Volume: "STATE"}
			_, _, enrollErr := n.Enroll(t.Context(), req)
			_, recoverErr := n.Recover(t.Context(), req, nil)
			for call, err := range map[string]error{"Enroll": enrollErr, "Recover": recoverErr} {
				switch {
				case test.want == "" && err != nil:
					t.Errorf("%s: %v", call, err)
				case test.want != "" && (!errors.Is(err, keys.ErrDenied) || !strings.Contains(err.Error(), test.want)):
					t.Errorf("%s: error %v, must be denied and contain %q", call, err, test.want)
				}
			}
		})
	}
}

// TestRepeated checks the rows above: what they call 18 of 36 must be that.
func TestRepeated(t *testing.T) {
	for n := 17; n <= 20; n++ {
		s := repeated('0', n)
		if got := strings.Count(s, "0"); got != n || len(s) != 36 {
			t.Errorf("%s has %d zeros of %d characters", s, got, len(s))
		}
	}
}

func TestNodeIDStrict(t *testing.T) {
	tests := []struct {
		name, uuid string
		want       string // in the error; empty for none
	}{
		{"random", nodeUUID, ""},
		{"random, upper case", strings.ToUpper(nodeUUID), ""},
		{"AMI's default, other byte order", "00020003-0004-0005-0006-000700080009", "firmware default"},
		{"Insyde's default", "12345678-1234-5678-90ab-cddeefaabbcc", "firmware default"},
		{"Insyde's default, upper case", "12345678-1234-5678-90AB-CDDEEFAABBCC", "firmware default"},
		{"Insyde's default, other byte order", "78563412-3412-7856-90ab-cddeefaabbcc", "firmware default"},
		{"erased flash", "fefefefe-fefe-fefe-fefe-fefefefefefe", "firmware default"},
		{"Dell without a service tag", "4c4c4544-0000-2010-8020-80c04f202020", "firmware default"},
		{"bytes that count up", "00010203-0405-0607-0809-0a0b0c0d0e0f", "firmware default"},
		{"bytes that count up, other byte order", "03020100-0504-0706-0809-0a0b0c0d0e0f", "firmware default"},
		{"bytes that count down", "07090201-0103-0301-0807-060504030201", "firmware default"},
		{"seven digits", "01234560-1234-5601-2345-601234560123", "only 7 different digits"},
		{"eight digits", "01234567-7654-3210-0246-135764205317", ""},
		{"two digits", "abababab-abab-abab-abab-abababababab", "only 2 different digits"},
		{"repeats after 8 digits", "12345678-1234-5678-1234-567812345678", "repeats itself"},
		{"repeats after 9 digits", "12345678-9123-4567-8912-345678912345", "repeats itself"},
		{"repeats after 15 digits", "12345678-9abc-def1-2345-6789abcdef12", "repeats itself"},
		{"repeats after 16 digits", "9876543a-bcde-f012-9876-543abcdef012", "repeats itself"},
		{"repeats after 17 digits", "9876543a-bcde-f012-8987-6543abcdef01", ""},
		{"counts up and repeats", "01234567-89ab-cdef-0123-456789abcdef", "repeats itself"},
		{"counts up and down", "01234567-89ab-cdef-fedc-ba9876543210", "counts up"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req := keys.Request{Volume: "STATE"}
			strict := keys.NodeID{UUID: test.uuid, Strict: true}
			_, _, err := strict.Enroll(t.Context(), req)
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (!errors.Is(err, keys.ErrDenied) || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, must be denied and contain %q", err, test.want)
			}
			if strings.Count(test.uuid, "0") > 18 {
				return // refused by the rule of Talos, too
			}
			// A disk that has such a key must still open with it.
			if _, err := strict.Recover(t.Context(), req, nil); err != nil {
				t.Errorf("Recover is strict too: %v", err)
			}
			if _, _, err := (keys.NodeID{UUID: test.uuid}).Enroll(t.Context(), req); err != nil {
				t.Errorf("Enroll is strict without being told to: %v", err)
			}
		})
	}
	t.Run("a thousand random ones", func(t *testing.T) {
		for range 1000 {
			n := keys.NodeID{UUID: luks.NewUUID(), Strict: true}
			p, _, err := n.Enroll(t.Context(), keys.Request{Volume: "STATE"})
			if err != nil {
				t.Error(err)
			}
			p.Wipe()
		}
	})
}

// TestNodeIDVolume: without the volume's name two volumes would have one key.
func TestNodeIDVolume(t *testing.T) {
	if _, err := (keys.NodeID{UUID: nodeUUID}).Recover(t.Context(), keys.Request{}, nil); !errors.Is(err, keys.ErrDenied) {
		t.Errorf("error %v, must be denied", err)
	}
}

func TestSaltLength(t *testing.T) {
	for _, n := range []int{0, 1, 31, 32, 33, 64} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			inner := keystest.NewSealer()
			good := keys.Salted{Provider: inner, Salt: salt(32)}
			_, token, err := good.Enroll(t.Context(), keys.Request{})
			if err != nil {
				t.Fatal(err)
			}
			s := keys.Salted{Provider: inner, Salt: salt(n)}
			p, err := s.Recover(t.Context(), keys.Request{}, token)
			q, _, enrollErr := s.Enroll(t.Context(), keys.Request{})
			if n == keys.SaltSize {
				if err != nil || enrollErr != nil || p.Len() != 44+32 || !bytes.HasSuffix(p.Bytes(), salt(32).Bytes()) || q.Len() != 44+32 {
					t.Errorf("%d and %d bytes, errors %v and %v", p.Len(), q.Len(), err, enrollErr)
				}
				return
			}
			if !errors.Is(err, keys.ErrUnavailable) || !errors.Is(enrollErr, keys.ErrUnavailable) || p != nil || q != nil {
				t.Errorf("gives %v and %v, errors %v and %v", p, q, err, enrollErr)
			}
		})
	}
}

// TestSaltedWipes: the passphrase without the salt is not left behind.
func TestSaltedWipes(t *testing.T) {
	inner := keystest.NewSealer()
	for _, n := range []int{31, 32} {
		s := keys.Salted{Provider: inner, Salt: salt(n)}
		p, token, _ := s.Enroll(context.Background(), keys.Request{})
		p.Wipe()
		p, _ = s.Recover(context.Background(), keys.Request{}, token)
		p.Wipe()
	}
	if n := inner.Unwiped(); n > 0 {
		t.Errorf("%d passphrases of the inner provider are not wiped", n)
	}
}
