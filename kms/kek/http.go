package kek

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/cryptctl/cryptctl/secret"
)

const (
	maxAnswer = 64 << 10
	maxToken  = 4 << 10
)

// request is the body of a call; bytes are base64 in JSON, as Transit wants them.
type request struct {
	Plaintext  []byte `json:"plaintext,omitempty"`
	Ciphertext string `json:"ciphertext,omitempty"`
	Associated []byte `json:"associated_data,omitempty"`
	Context    []byte `json:"context,omitempty"`
}

// answer is the data of a reply.
type answer struct {
	Plaintext  []byte `json:"plaintext"`
	Ciphertext string `json:"ciphertext"`
	Latest     int    `json:"latest_version"`
}

// call does one request, once more if the connection broke: a server that was
// restarted leaves idle connections that are dead.
func (t *Transit) call(ctx context.Context, method, op, action string, r request) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, t.o.Timeout)
	defer cancel()
	to := t.base.JoinPath("v1", t.o.Mount, op, url.PathEscape(t.o.Key)).String() + action
	status, body, err := t.exchange(ctx, method, to, r)
	// A rotation may have been done, with its answer lost: it is not done twice.
	if err != nil && ctx.Err() == nil && !errors.Is(err, errToken) && action == "" {
		status, body, err = t.exchange(ctx, method, to, r)
	}
	defer clear(body)
	if err == nil {
		var a answer
		if a, err = parseAnswer(op, status, body); err == nil {
			return a, nil
		}
	}
	return answer{}, t.fault(op, err)
}

var errToken = errors.New("token file")

// exchange sends r and returns the answer's body, which may hold a key.
func (t *Transit) exchange(ctx context.Context, method, to string, r request) (int, []byte, error) {
	token, err := t.token()
	if err != nil {
		return 0, nil, err
	}
	defer token.Wipe()
	text, err := json.Marshal(r)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, to, &wiped{r: bytes.NewReader(text), text: text})
	if err != nil {
		return 0, nil, err
	}
	req.ContentLength = int64(len(text))
	if method == http.MethodGet {
		req.Body, req.ContentLength = nil, 0
	}
	// The header needs a string: the one place where the token becomes one.
	req.Header.Set("X-Vault-Token", string(token.Bytes()))
	req.Header.Set("X-Vault-Request", "true")
	if t.o.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", t.o.Namespace)
	}
	resp, err := t.client.Do(req)
	if _, bad := errors.AsType[*tls.CertificateVerificationError](err); bad {
		return 0, nil, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrDown, err)
	}
	defer resp.Body.Close()
	body := make([]byte, maxAnswer+1)
	n, err := io.ReadFull(resp.Body, body)
	switch {
	case err == nil:
		clear(body)
		return 0, nil, fmt.Errorf("an answer of more than %d bytes", maxAnswer)
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		clear(body)
		return 0, nil, fmt.Errorf("%w: %w", ErrDown, err)
	}
	return resp.StatusCode, body[:n], nil
}

// wiped is a request body that is zeroed when the transport is done with it,
// which may be after Do returned.
type wiped struct {
	mu   sync.Mutex
	r    *bytes.Reader
	text []byte
}

func (w *wiped) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.r.Read(p)
}

func (w *wiped) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.text)
	w.r.Reset(nil)
	return nil
}

func (t *Transit) token() (*secret.Bytes, error) {
	f, err := os.Open(t.o.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errToken, err)
	}
	defer f.Close()
	raw, err := secret.Read(f, maxToken)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", errToken, t.o.TokenFile, err)
	}
	defer raw.Wipe()
	trimmed := bytes.TrimSpace(raw.Bytes())
	if len(trimmed) == 0 || bytes.ContainsFunc(trimmed, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("%w %s: it holds no token: want one line of plain text", errToken, t.o.TokenFile)
	}
	return secret.Copy(trimmed), nil
}

// parseAnswer reads a reply, or says what its status means. The codes are those
// of Vault's HTTP API; OpenBao has the same.
func parseAnswer(op string, status int, body []byte) (answer, error) {
	if status == http.StatusNoContent || status == http.StatusOK && op == "keys" && len(body) == 0 {
		return answer{}, nil
	}
	if status == http.StatusOK {
		var reply struct {
			Data answer `json:"data"`
		}
		if err := json.Unmarshal(body, &reply); err != nil {
			return answer{}, errors.New("the answer is not the JSON of Transit") // err may quote a key
		}
		return reply.Data, nil
	}
	said := firstError(body)
	switch {
	case status == http.StatusServiceUnavailable, status == http.StatusNotImplemented:
		return answer{}, fmt.Errorf("%w: status %d%s", ErrSealed, status, said)
	case status == http.StatusTooManyRequests, status == 472, status == 473, status >= 500:
		return answer{}, fmt.Errorf("%w: status %d%s", ErrDown, status, said)
	case status >= 300 && status < 400:
		return answer{}, fmt.Errorf("%w: status %d: it sends us to another server; give the active one's address", ErrDown, status)
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return answer{}, fmt.Errorf("%w: status %d%s", ErrDenied, status, said)
	case status == http.StatusNotFound:
		return answer{}, fmt.Errorf("%w: there is no such mount or key%s", ErrDenied, said)
	case status == http.StatusBadRequest && (op == "decrypt" || op == "rewrap"):
		if kind := badInput(said); kind != nil {
			return answer{}, fmt.Errorf("%w: status %d%s", kind, status, said)
		}
	}
	return answer{}, fmt.Errorf("status %d%s", status, said)
}

// badInput tells apart, by Vault's words, what the status 400 of a decryption means.
// It is nil for a request that does not fit the key: that says nothing of what is
// wrapped.
func badInput(said string) error {
	switch {
	case strings.Contains(said, "disallowed by policy"), strings.Contains(said, "version is too new"):
		return ErrVersion
	case strings.Contains(said, "encryption key not found"):
		return ErrDenied // of all operations only these do not answer 404
	case strings.Contains(said, "authentication failed"), strings.Contains(said, "invalid ciphertext"):
		return ErrNotAuthentic
	}
	return nil
}

// firstError returns the first message of an error reply, quoted and cut.
func firstError(body []byte) string {
	var reply struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(body, &reply) != nil || len(reply.Errors) == 0 {
		return ""
	}
	return fmt.Sprintf(": it says %.200q", reply.Errors[0])
}
