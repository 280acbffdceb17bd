package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"unsafe"

	"github.com/cryptctl/cryptctl/secret"
)

const plain = "correct horse battery staple"

// leaks reports whether s shows the secret, as text, hex or decimal bytes.
func leaks(s string) bool {
	low := strings.ToLower(s)
	return strings.Contains(s, "horse") ||
		strings.Contains(low, fmt.Sprintf("%x", "horse")) ||
		strings.Contains(s, "104 111 114 115 101") ||
		strings.Contains(s, "0x68, 0x6f, 0x72")
}

func TestNeverPrinted(t *testing.T) {
	b := secret.Copy([]byte(plain))
	defer b.Wipe()
	wrapped := struct {
		Name string
		Key  *secret.Bytes
	}{"slot 0", b}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%T|%v", "%10s", "%c", "%U", "%t", "%e"} {
		arg := []any{b}
		if verb == "%T|%v" {
			arg = []any{b, b}
		}
		if got := fmt.Sprintf(verb, arg...); leaks(got) || !strings.Contains(got, secret.Placeholder) {
			t.Errorf("%s of a secret gives %q", verb, got)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%s"} {
		if got := fmt.Sprintf(verb, wrapped); leaks(got) || !strings.Contains(got, secret.Placeholder) {
			t.Errorf("%s of a struct with a secret gives %q", verb, got)
		}
	}
	if got := fmt.Sprint(b, " ", errors.New("x")); leaks(got) {
		t.Errorf("Sprint gives %q", got)
	}
	if got := fmt.Errorf("unlock with %v: %w", b, io.EOF).Error(); leaks(got) {
		t.Errorf("Errorf gives %q", got)
	}
	j, err := json.Marshal(wrapped)
	if err != nil || leaks(string(j)) || !strings.Contains(string(j), secret.Placeholder) {
		t.Errorf("JSON gives %s, %v", j, err)
	}
	j, err = json.Marshal(map[string]any{"k": b})
	if err != nil || leaks(string(j)) {
		t.Errorf("JSON of a map gives %s, %v", j, err)
	}
	for _, h := range []func(io.Writer) slog.Handler{
		func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
		func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
	} {
		var out bytes.Buffer
		slog.New(h(&out)).Info("unlock", "key", b, "in", wrapped)
		if leaks(out.String()) || !strings.Contains(out.String(), secret.Placeholder) {
			t.Errorf("slog gives %s", out.String())
		}
	}
	if b.String() != secret.Placeholder || b.GoString() != secret.Placeholder {
		t.Error("String or GoString shows something else than the placeholder")
	}
}

func TestNilIsEmpty(t *testing.T) {
	var b *secret.Bytes
	b.Wipe()
	if b.Len() != 0 || b.Bytes() != nil || b.Locked() || fmt.Sprintf("%v", b) != secret.Placeholder {
		t.Error("nil is not an empty, unprintable secret")
	}
}

func TestWipe(t *testing.T) {
	src := []byte(plain)
	b := secret.Take(src)
	if string(b.Bytes()) != plain {
		t.Fatalf("contents differ after Take")
	}
	if bytes.ContainsAny(src, plain) {
		t.Error("Take left its source as it was")
	}
	c := b.Clone()
	b.Wipe()
	b.Wipe()
	if b.Len() != 0 || b.Bytes() != nil {
		t.Error("a wiped secret still has bytes")
	}
	if string(c.Bytes()) != plain {
		t.Error("wiping a secret changed its clone")
	}
	c.Wipe()
}

// TestKernelFlags reads /proc/self/smaps: the pages of a secret must be locked
// (lo) and excluded from dumps (dd).
func TestKernelFlags(t *testing.T) {
	b := secret.Copy([]byte(plain))
	defer b.Wipe()
	if !b.Locked() {
		t.Skip("this process may not lock memory (RLIMIT_MEMLOCK)")
	}
	addr := uint64(uintptr(unsafe.Pointer(&b.Bytes()[0])))
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	header := regexp.MustCompile(`^([0-9a-f]+)-([0-9a-f]+) `)
	inside := false
	for line := range strings.Lines(string(smaps)) {
		if m := header.FindStringSubmatch(line); m != nil {
			lo, _ := strconv.ParseUint(m[1], 16, 64)
			hi, _ := strconv.ParseUint(m[2], 16, 64)
			inside = lo <= addr && addr < hi
		}
		if inside && strings.HasPrefix(line, "VmFlags:") {
			flags := strings.Fields(line)
			for _, want := range []string{"lo", "dd"} {
				if !strings.Contains(" "+strings.Join(flags, " ")+" ", " "+want+" ") {
					t.Errorf("flag %s missing in %v", want, flags)
				}
			}
			return
		}
	}
	t.Error("the secret's mapping is not in smaps")
}

func TestRead(t *testing.T) {
	long := strings.Repeat("k", 10_000)
	tests := []struct {
		name  string
		in    string
		limit int
		want  error
	}{
		{"empty", "", 8, nil},
		{"exact", "12345678", 8, nil},
		{"one over", "123456789", 8, secret.ErrTooLong},
		{"grows", long, 10_000, nil},
		{"long over", long, 9_999, secret.ErrTooLong},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := secret.Read(iotest.OneByteReader(strings.NewReader(tt.in)), tt.limit)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err == nil && string(b.Bytes()) != tt.in {
				t.Errorf("read %d bytes, want %d", b.Len(), len(tt.in))
			}
			b.Wipe()
		})
	}
	if _, err := secret.Read(iotest.ErrReader(io.ErrUnexpectedEOF), 8); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read error lost: %v", err)
	}
}

func TestEqualConcatRandom(t *testing.T) {
	a, b := secret.Copy([]byte("ab")), secret.Copy([]byte("c"))
	ab := secret.Concat(a, nil, b)
	if !ab.Equal(secret.Copy([]byte("abc"))) || ab.Equal(a) {
		t.Error("Concat or Equal is wrong")
	}
	if r := secret.Random(32); r.Len() != 32 || r.Equal(secret.New(32)) || r.Equal(secret.Random(32)) {
		t.Error("Random is not random")
	}
}
