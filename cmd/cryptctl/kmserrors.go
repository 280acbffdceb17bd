package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/wire"
)

// explain says what an error of a call means, where, and what to do.
func (c kmsCall) explain(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	text, do := oneLine(s.Message()), ""
	switch s.Code() {
	case codes.Unavailable:
		text, do = c.unreachable(text)
	case codes.Unauthenticated, codes.PermissionDenied:
		do = "use a certificate of that role (cryptctl pki cert --role) with --certificate and --key"
	case codes.NotFound:
		do = "cryptctl kms key status shows the versions that there are"
		if strings.Contains(text, "node") {
			do = "cryptctl kms node list shows those that are known"
		}
	case codes.DeadlineExceeded:
		text = "there was no answer in time"
		do = "whether it was done is not known: look before you try again"
	case codes.Canceled:
		text, do = "interrupted", "whether it was done is not known: look before you try again"
	case codes.Unimplemented:
		if strings.Contains(text, wire.Admin_ServiceDesc.ServiceName) {
			text = "operators are not answered here, or it is an older server"
			do = "give the address of operators.listen with --server"
		}
	}
	if do != "" {
		do = "; " + do
	}
	return &kmsRefusal{s.Code(), fmt.Sprintf("key server %s: %s%s", c.address, text, do)}
}

// unreachable tells a server that has trouble from one that there is no way to.
func (c kmsCall) unreachable(text string) (what, do string) {
	if !strings.Contains(text, "connection error") && !strings.Contains(text, "transport: ") {
		return text, "" // the server's own words
	}
	if what, do = known(text); what == "" {
		what, do = known(c.alert())
	}
	if what != "" {
		return what, do
	}
	_, rest, ok := strings.Cut(text, "desc = ")
	if !ok {
		rest = text
	}
	return "it cannot be reached: " + strings.Trim(rest, `"`), runningHint
}

const runningHint = "is it running (cryptctl kms serve)? --server names another one"

// known says in our words what is in the way, which gRPC has as text only; "" if it is
// nothing that has any.
func known(text string) (what, do string) {
	for _, t := range []struct{ sign, what, do string }{
		{"signed by unknown authority", "its certificate is of another authority than that of --ca", "give the file of its authority with --ca"},
		{"certificate is valid for", "its certificate is for another name", "give the name that is in it with --server-name"},
		{"is not valid for any names", "its certificate is for another name", "give the name that is in it with --server-name"},
		{"any IP SANs", "its certificate is for another name", "give the name that is in it with --server-name"},
		{"certificate has expired or is not yet valid", "its certificate has ended, or the clock is wrong", "give the server a new certificate"},
		{"tls: unknown certificate authority", "the operator's certificate is of an authority that it does not know", "give one that it knows with --certificate and --key"},
		{"tls: certificate required", "it wants a client certificate", "give one with --certificate and --key"},
		{"tls: bad certificate", "it does not take the operator's certificate", "give one for clients, of the server's authority, with --certificate and --key"},
		{"tls: expired certificate", "the operator's certificate has ended, by the server's clock", "issue a new one with cryptctl pki cert"},
		{"first record does not look like a TLS handshake", "it speaks no TLS", "give the address of operators.listen with --server"},
		{"connection refused", "nobody listens there", runningHint},
		{"no such host", "there is no such host", "give another one with --server"},
	} {
		if strings.Contains(text, t.sign) {
			return t.what, t.do
		}
	}
	return "", ""
}

// alert asks the server for why it does not take our certificate. With TLS 1.3 it
// says so after our handshake is over, and gRPC, which writes first, may find the
// connection closed before it reads that.
func (c kmsCall) alert() string {
	const limit = 5 * time.Second
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: limit}, Config: c.tls}
	conn, err := d.Dial("tcp", c.address)
	if err == nil {
		defer conn.Close()
		if err = conn.SetReadDeadline(time.Now().Add(limit)); err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
	}
	if err == nil || !strings.Contains(err.Error(), "tls: ") {
		return ""
	}
	return err.Error()
}
