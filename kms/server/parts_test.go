package server_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/kek/kektest"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/server"
)

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// TestTransitFakeAway: a server whose Vault is sealed starts and says why it does
// not answer; it answers by itself when Vault does; and while Vault is away again,
// nodes whose keys are in use are answered.
func TestTransitFakeAway(t *testing.T) {
	t.Parallel()
	b := open(t, t.TempDir(), policy.Rules{Enrol: policy.Open})
	t.Cleanup(b.close)
	b.keeper.Close()
	fake, log := &kektest.Transit{}, &lines{}
	at := fake.Start(t)
	fake.Answers(http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`)
	vault, err := kek.NewTransit(kek.TransitOptions{Address: at.URL, Mount: kektest.Mount, Key: kektest.Key, TokenFile: at.TokenFile, CAFile: at.CAFile})
	if err != nil {
		t.Fatal(err)
	}
	if b.keeper, err = keeper.New(t.Context(), keeper.Options{Store: b.store, KEK: vault, Audit: b.log, Rules: policy.Rules{Enrol: policy.Open}}); err != nil {
		t.Fatal(err)
	}
	r := start(t, b, func(o *server.Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	cc := plain(t, r.nodes, "")
	up := `cryptctl_kms_part_up{part="kek"}`

	eventually(t, "why", func() bool {
		return strings.Contains(get(t, r, "/readyz", http.StatusServiceUnavailable), "Vault is sealed")
	})
	if _, err := seal(within(t), cc, nodeA, []byte("data")); status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "sealed") {
		t.Errorf("sealed: %v", err)
	}
	eventually(t, "kek 0", func() bool { return metric(t, r, up) == 0 && log.count("not available") == 1 })

	fake.Answers(0, "")
	eventually(t, "kek 1", func() bool { return metric(t, r, up) == 1 })
	if text := get(t, r, "/readyz", http.StatusOK); text != "ok\n" {
		t.Errorf("/readyz: %q", text)
	}
	raw, err := seal(within(t), cc, nodeA, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}

	fake.Answers(http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`)
	eventually(t, "kek 0 again", func() bool { return metric(t, r, up) == 0 })
	if text := get(t, r, "/readyz", http.StatusOK); !strings.Contains(text, "only nodes whose keys are in use") || !strings.Contains(text, "Vault is sealed") {
		t.Errorf("/readyz: %q", text)
	}
	if data, err := unseal(within(t), cc, nodeA, raw); err != nil || string(data) != "data" {
		t.Errorf("a key in use: %v", err)
	}
	if _, err := seal(within(t), cc, nodeB, []byte("data")); status.Code(err) != codes.Unavailable {
		t.Errorf("a new node: %v", err)
	}
	for name, want := range map[string]int{
		`cryptctl_kms_answers_total{op="seal",answer="kek"}`: 2, `cryptctl_kms_answers_total{op="seal",answer="allowed"}`: 1,
		`cryptctl_kms_answers_total{op="unseal",answer="allowed"}`: 1,
		`cryptctl_kms_part_up{part="store"}`:                       1, `cryptctl_kms_part_up{part="audit"}`: 1, "cryptctl_kms_nodes": 1,
	} {
		if got := metric(t, r, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if n, m := log.count("not available"), log.count("available again"); n != 2 || m != 1 {
		t.Errorf("the log has %d and %d changes", n, m)
	}
}

// TestCertificateMetric: the certificate's end is that of the files of now.
func TestCertificateMetric(t *testing.T) {
	p := newParty(t)
	r := fresh(t, p.secure(t))
	for _, name := range []string{"nodes", "operators"} {
		left := time.Until(time.Unix(int64(metric(t, r, `cryptctl_kms_certificate_expires_seconds{listener="`+name+`"}`)), 0))
		if left < 23*time.Hour || left > 24*time.Hour {
			t.Errorf("%s: %v", name, left)
		}
	}
}

// TestAnswersFromTheStart: every reason that there is has a series before it is
// used for the first time, or a rate would not see it.
func TestAnswersFromTheStart(t *testing.T) {
	text, n := get(t, fresh(t, nil), "/metrics", http.StatusOK), 0
	reason := regexp.MustCompile(`(?m)^\t\w+ +(?:policy\.)?Reason += "([a-z-]+)"`)
	for _, path := range []string{"../keeper/errors.go", "../policy/policy.go"} {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range reason.FindAllSubmatch(source, -1) {
			n++
			word := string(m[1])
			if word == string(policy.OK) {
				word = "allowed"
			}
			for _, op := range []string{"seal", "unseal"} {
				if !strings.Contains(text, fmt.Sprintf("\ncryptctl_kms_answers_total{op=%q,answer=%q} 0\n", op, word)) {
					t.Errorf("%s: %s %s is not there; it belongs to answers()", path, op, word)
				}
			}
		}
	}
	if n < 15 {
		t.Errorf("only %d reasons were found", n)
	}
}
