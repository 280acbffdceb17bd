package server

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/wire"
)

const noVersions = "its key-encryption key has no versions"

// RotateKEK implements the service.
func (a admin) RotateKEK(ctx context.Context, r *wire.RotateKEKRequest) (*wire.KEKStatus, error) {
	if a.o.Parts.KEK == nil {
		return nil, notHere(noVersions)
	}
	event := a.event(ctx, "rotate-kek", r.GetReason())
	if err := a.append(event); err != nil {
		return nil, err
	}
	version, err := a.o.Parts.KEK.Rotate(ctx)
	if event.Outcome, event.Detail = "done", version; err != nil {
		event.Outcome, event.Detail = "failed", err.Error()
	}
	a.note(event)
	if err != nil {
		return nil, operatorAnswer(err)
	}
	return a.GetKEKStatus(ctx, nil)
}

// RewrapKEK implements the service.
func (a admin) RewrapKEK(_ *wire.RewrapKEKRequest, out wire.Admin_RewrapKEKServer) error {
	total := uint64(0)
	use, err := a.o.Keeper.KEKUse(out.Context())
	if err != nil {
		return operatorAnswer(err)
	}
	for _, n := range use {
		total += uint64(n)
	}
	send := func(r keeper.Rewrapped) error {
		done := uint64(r.Renewed + r.Kept)
		return out.Send(&wire.RewrapProgress{Done: done, Total: max(total, done)})
	}
	var cut error // whoever asked went away; the context says so to the keeper
	r, err := a.o.Keeper.Rewrap(out.Context(), by(out.Context(), ""), func(r keeper.Rewrapped) {
		if cut == nil {
			cut = send(r)
		}
	})
	if err != nil {
		return operatorAnswer(err)
	}
	return send(r)
}

// GetKEKStatus implements the service.
func (a admin) GetKEKStatus(ctx context.Context, _ *wire.GetKEKStatusRequest) (*wire.KEKStatus, error) {
	if a.o.Parts.KEK == nil {
		return nil, notHere(noVersions)
	}
	use, err := a.o.Keeper.KEKUse(ctx)
	if err != nil {
		return nil, operatorAnswer(err)
	}
	current, err := a.o.Parts.KEK.Current(ctx)
	if err != nil {
		return nil, operatorAnswer(err)
	}
	use[current] += 0 // it is there, also when it wraps nothing yet
	out := &wire.KEKStatus{Backend: a.o.Parts.KEKName, Primary: kekNumber(current)}
	for version, n := range use {
		out.Versions = append(out.Versions, &wire.KEKVersion{Version: kekNumber(version), Wraps: uint64(n)})
	}
	slices.SortFunc(out.GetVersions(), func(a, b *wire.KEKVersion) int { return cmp.Compare(a.GetVersion(), b.GetVersion()) })
	return out, nil
}

// kekNumber is a version of a key-encryption key as a number: k0000001f of a
// keyset, v3 of Transit; 0 for one that is neither.
func kekNumber(version string) uint32 {
	base := 10
	rest, ok := strings.CutPrefix(version, "v")
	if !ok {
		rest, ok = strings.CutPrefix(version, "k")
		base = 16
	}
	n, err := strconv.ParseUint(rest, base, 32)
	if !ok || err != nil {
		return 0
	}
	return uint32(n)
}

// event begins the record of what an operator does without the keeper.
func (a admin) event(ctx context.Context, op, reason string) audit.Event {
	o := by(ctx, reason)
	return audit.Event{Op: op, Actor: o.Name, Source: addressText(o.Source), Outcome: "begun", Detail: reason}
}

// append puts on record what must not be done without.
func (a admin) append(e audit.Event) error {
	if a.o.Audit == nil {
		return nil
	}
	if err := a.o.Audit.Append(e); err != nil {
		return status.Error(codes.Unavailable, "the audit log is not available: "+err.Error())
	}
	return nil
}
