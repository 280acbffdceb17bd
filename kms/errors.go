package kms

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/keys"
)

// Error is a failure of a call. It wraps a class of package keys:
//
//	ErrUnavailable  no answer, or one that another try may change
//	ErrDenied       PermissionDenied, Unauthenticated, FailedPrecondition, NotFound
//	ErrMalformed    InvalidArgument, OutOfRange; an answer of the wrong length; a
//	                token that cannot be read
type Error struct {
	// Endpoint that was asked; "" when it is about several, or none.
	Endpoint string
	// Code is the server's, or gRPC's own; OK when the answer itself is at fault.
	Code codes.Code
	// RetryAfter is what the server asked to wait before the next try.
	RetryAfter time.Duration

	class error
	text  string
	cause error
}

// Error says what is wrong and what to do.
func (e *Error) Error() string {
	if e.Endpoint == "" {
		return e.text
	}
	return "key server " + e.Endpoint + ": " + e.text
}

// Unwrap returns the class of package keys, and the cause.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.class}
	}
	return []error{e.class, e.cause}
}

// outcome is what is to be done after a call to one endpoint failed.
type outcome int

const (
	retry outcome = iota // the same endpoint may answer later
	skip                 // this endpoint will not, another may
	final                // no endpoint will
)

// judge turns what gRPC returned into an error of ours, and says what to do next.
func judge(e Endpoint, err error, took time.Duration) (*Error, outcome) {
	s := status.Convert(err)
	out := &Error{Endpoint: e.String(), Code: s.Code(), class: keys.ErrUnavailable, text: shown(s.Message())}
	if s.Code() != codes.Unavailable && strings.Contains(s.Message(), "unexpected HTTP status code") {
		out.text = "something on the way answers in its place; check proxy, load balancer and address: " + out.text
		return out, skip
	}
	switch s.Code() {
	case codes.PermissionDenied, codes.Unauthenticated, codes.FailedPrecondition, codes.NotFound:
		out.class = keys.ErrDenied
		out.text = fmt.Sprintf("denied (%s): %s; ask who runs the key server about this node", s.Code(), out.text)
		return out, final
	case codes.InvalidArgument, codes.OutOfRange:
		out.class = keys.ErrMalformed
		out.text = fmt.Sprintf("cannot use what it was sent (%s): %s; the token may be of another server", s.Code(), out.text)
		return out, final
	case codes.Unimplemented:
		out.text = "answers, but is not a key server; check address and port: " + out.text
		return out, skip
	case codes.DeadlineExceeded:
		out.text = fmt.Sprintf("no answer within %s", took.Round(time.Millisecond))
	case codes.ResourceExhausted:
		if out.RetryAfter = retryAfter(s); out.RetryAfter > 0 {
			out.text = fmt.Sprintf("busy, asks to wait for %s: %s", out.RetryAfter, out.text)
		}
	case codes.Unavailable:
		out.text = "not reached: " + out.text
		if !e.Plaintext() && tlsTrouble(out.text) {
			out.text += "; check the authorities, the host name in the server's certificate, the client certificate, and the clock"
		}
	default:
		out.text = fmt.Sprintf("failed (%s): %s", s.Code(), out.text)
	}
	return out, retry
}

// tlsTrouble reports whether what gRPC says may be about certificates: a server
// refuses that of a client after its handshake, when the client already writes.
func tlsTrouble(text string) bool {
	return slices.ContainsFunc([]string{"x509:", "tls:", "authentication handshake", "settings frame", "server preface"},
		func(sign string) bool { return strings.Contains(text, sign) })
}

// retryAfter is the server's wish (google.rpc.RetryInfo), 0 for none.
func retryAfter(s *status.Status) time.Duration {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok && info.GetRetryDelay().IsValid() {
			return max(0, info.GetRetryDelay().AsDuration())
		}
	}
	return 0
}

// malformed is an answer that cannot be used.
func malformed(e Endpoint, format string, args ...any) *Error {
	return &Error{Endpoint: e.String(), class: keys.ErrMalformed, text: fmt.Sprintf(format, args...)}
}

// gaveUp is the error of a call whose time is up, or that no endpoint is left for:
// what was tried last, for each. Its class is theirs if it is one.
func gaveUp(ctx context.Context, tries []*Error) error {
	out := &Error{class: keys.ErrUnavailable, cause: context.Cause(ctx)}
	var texts []string
	for i, t := range tries {
		if t != nil {
			if i == 0 {
				out.class = t.class
			} else if !errors.Is(t.class, out.class) {
				out.class = keys.ErrUnavailable
			}
			texts = append(texts, t.Error())
			out.Code, out.RetryAfter = t.Code, max(out.RetryAfter, t.RetryAfter)
		}
	}
	switch {
	case len(tries) == 1 && tries[0] != nil:
		out.Endpoint, out.text = tries[0].Endpoint, tries[0].text
	case len(texts) > 0:
		out.text = strings.Join(texts, "; ")
	case errors.Is(out.cause, context.Canceled):
		out.text = "given up before a key server was asked"
	default:
		out.text = "no time was left to ask a key server"
	}
	return out
}

// maxText bounds what is shown of a server's message.
const maxText = 300

// keyLike is what 32 bytes look like in base64 or hexadecimal. A UUID is shorter.
func keyLike() *regexp.Regexp { return regexp.MustCompile(`[A-Za-z0-9+/_=-]{40,}`) }

// shown makes a message that a server may have written fit for a log: one line of
// text, of limited length, without words that may be a key.
func shown(message string) string {
	clean := func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }
	if !utf8.ValidString(message) || strings.ContainsFunc(message, clean) {
		return "(a message that is not text)"
	}
	message = keyLike().ReplaceAllString(strings.Join(strings.Fields(message), " "), "[...]")
	if message == "" {
		return "(no message)"
	}
	if len(message) > maxText {
		message = strings.ToValidUTF8(message[:maxText], "") + " ..."
	}
	return message
}
