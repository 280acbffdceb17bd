package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
)

// domain is that of the reasons in ErrorInfo.
const domain = "kms.cryptctl"

// refuse makes an answer: a reason for programs, a text for people, and when to
// come back, if that helps.
func refuse(code codes.Code, reason, text string, after time.Duration) error {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Domain: domain}}
	if after > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	s, err := status.New(code, text).WithDetails(details...)
	if err != nil {
		return status.Error(code, text)
	}
	return s.Err()
}

// answer turns a refusal of the keeper into what the node is told. The cause of
// one that is the server's own trouble is not for the node.
func answer(err error) error {
	e, ok := errors.AsType[*keeper.Error](err)
	if !ok {
		return refuse(codes.Unavailable, "internal", "the key server cannot answer now", 0)
	}
	reason := string(e.Reason)
	switch e.Code {
	case keeper.Denied:
		return refuse(codes.PermissionDenied, reason, "denied: "+meaning(e), 0)
	case keeper.Revoked:
		return refuse(codes.PermissionDenied, reason, "the node is revoked", 0)
	case keeper.Pending:
		return refuse(codes.FailedPrecondition, reason, "the node waits for an operator's approval", 0)
	case keeper.Frozen:
		return refuse(codes.FailedPrecondition, reason, "the node is frozen by an operator", 0)
	case keeper.RateLimited:
		text := "too many unseals of this node"
		if e.Reason != policy.RateLimited {
			text = meaning(e)
		}
		return refuse(codes.ResourceExhausted, reason, text, max(e.RetryAfter, time.Second))
	case keeper.Malformed:
		return refuse(codes.InvalidArgument, reason, "malformed: "+meaning(e), 0)
	}
	return refuse(codes.Unavailable, reason, "the key server cannot answer now: its "+meaning(e)+" is not available", 0)
}

// meaning is a reason in words; as it is, if there are none.
func meaning(e *keeper.Error) string {
	switch e.Reason {
	case keeper.BadRequest, keeper.ImportOff:
		if e.Err != nil {
			return e.Err.Error() // about what the node sent
		}
	case keeper.NotAuthentic:
		return "the blob was sealed for another node, by another server, or is damaged"
	case keeper.KeyRetired:
		return "the key that sealed the blob is gone"
	case keeper.Imported:
		return "the blob belongs to another node"
	case keeper.TooMany:
		return "there is no room for one more node"
	case keeper.TooManyPending:
		return "too many nodes wait for approval, or too many of this network asked for it"
	case keeper.KEKVersion:
		return "key-encryption key, in the version that wrapped the node's key,"
	case keeper.KEKRefuses:
		return "key-encryption key, which does not open the node's key,"
	case keeper.NoKEK:
		return "key-encryption key"
	case keeper.NoStore:
		return "store"
	case keeper.NoAudit:
		return "audit log"
	}
	return string(e.Reason)
}

// lacking is that the caller's role is not enough, found when the node is known.
type lacking string

func (l lacking) Error() string { return string(l) }

// operatorAnswer turns an error of an operator's change into a status. Operators
// see causes.
func operatorAnswer(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	e, _ := errors.AsType[*keeper.Error](err)
	why, lacks := errors.AsType[lacking](err)
	switch {
	case lacks:
		return status.Error(codes.PermissionDenied, why.Error())
	case errors.Is(err, keeper.ErrUnknown):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, keeper.ErrChanged):
		return status.Error(codes.Aborted, err.Error())
	case errors.Is(err, keeper.ErrRefused), errors.Is(err, keeper.ErrNoKey):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case e == nil:
		return status.Error(codes.Internal, err.Error())
	case e.Code == keeper.Malformed:
		return status.Error(codes.InvalidArgument, err.Error())
	case e.Code == keeper.Unavailable:
		return status.Error(codes.Unavailable, err.Error())
	}
	return status.Error(codes.FailedPrecondition, err.Error())
}
