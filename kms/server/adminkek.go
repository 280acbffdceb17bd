package server

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/wire"
)

const noVersions = "its key-encryption key has no versions"

// RotateKEK implements the service.
func (a admin) RotateKEK(ctx context.Context, r *wire.RotateKEKRequest) (*wire.KEKStatus, error) {
	if a.o.Parts.KEK == nil {
		return nil, notHere(noVersions)
	}
	if err := a.o.Keeper.CheckKEK(ctx); err != nil {
		return nil, operatorAnswer(err) // a version of a keyset that is not the store's helps nobody
	}
	event := a.event(ctx, "rotate-kek", r.GetReason())
	if err := a.append(event); err != nil {
		return nil, err
	}
	version, err := a.o.Parts.KEK.Rotate(ctx)
	if event.Outcome, event.After = "done", "version="+version; err != nil {
		event.Outcome, event.Detail = "failed", err.Error()
	}
	a.note(event)
	if err != nil {
		return nil, operatorAnswer(err)
	}
	return a.GetKEKStatus(ctx, nil)
}

// RewrapKEK implements the service.
func (a admin) RewrapKEK(r *wire.RewrapKEKRequest, out wire.Admin_RewrapKEKServer) error {
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
		return out.Send(&wire.RewrapProgress{Done: done, Total: max(total, done), Renewed: uint64(r.Renewed)})
	}
	var cut error // whoever asked went away; the context says so to the keeper
	all, err := a.o.Keeper.Rewrap(out.Context(), by(out.Context(), r.GetReason()), func(r keeper.Rewrapped) {
		if cut == nil {
			cut = send(r)
		}
	})
	if err != nil {
		return operatorAnswer(err)
	}
	return send(all)
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
	out := &wire.KEKStatus{Backend: a.o.Parts.KEKName, Primary: current}
	all, ok := a.o.Parts.KEK.(versioned)
	if !ok {
		out.Versions = inUse(use)
		return out, nil
	}
	there, err := all.Versions()
	if err != nil {
		return nil, operatorAnswer(err)
	}
	out.Versions = inUse(use, there...)
	return out, nil
}

// versioned is a KEK that tells all of its versions. A [kek.Keyset] is one.
type versioned interface {
	Versions() (kek.Versions, error)
}

// inUse is the versions that are there, as far as that is known, and those that
// wrap something.
func inUse(use map[string]int, there ...kek.VersionInfo) (out []*wire.KEKVersion) {
	for _, v := range there {
		state := wire.KEKVersionState_KEK_VERSION_STATE_ENABLED
		if !v.Enabled {
			state = wire.KEKVersionState_KEK_VERSION_STATE_DISABLED
		}
		out = append(out, &wire.KEKVersion{Version: v.Name, State: state, Wraps: uint64(use[v.Name])})
		delete(use, v.Name)
	}
	state := wire.KEKVersionState_KEK_VERSION_STATE_UNSPECIFIED
	if len(there) > 0 {
		state = wire.KEKVersionState_KEK_VERSION_STATE_MISSING
	}
	for _, name := range slices.SortedFunc(maps.Keys(use), oldestFirst) {
		out = append(out, &wire.KEKVersion{Version: name, State: state, Wraps: uint64(use[name])})
	}
	return out
}

// oldestFirst orders versions of Transit, which are counted: v2 is before v10.
func oldestFirst(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// RetireKEK implements the service.
func (a admin) RetireKEK(ctx context.Context, r *wire.RetireKEKRequest) (*wire.KEKStatus, error) {
	keys, ok := a.o.Parts.KEK.(keeper.Retirer)
	if !ok {
		return nil, notHere("versions of its key-encryption key are destroyed where it is kept: in Transit, raise the key's min_decryption_version and trim it")
	}
	version := r.GetVersion()
	if version == "" || r.GetConfirm() != version {
		return nil, status.Error(codes.FailedPrecondition, "retiring a version of the key-encryption key destroys it for good; confirm with the version")
	}
	now, err := a.GetKEKStatus(ctx, nil)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(now.GetVersions(), func(v *wire.KEKVersion) bool { return v.GetVersion() == version })
	switch {
	case at < 0 || now.GetVersions()[at].GetState() == wire.KEKVersionState_KEK_VERSION_STATE_MISSING:
		return nil, status.Error(codes.NotFound, "there is no such version of the key-encryption key")
	case version == now.GetPrimary():
		return nil, status.Error(codes.FailedPrecondition, "this version of the key-encryption key wraps what is new; rotate it and rewrap first")
	}
	if err := a.o.Keeper.RetireKEK(ctx, by(ctx, r.GetReason()), version, keys); err != nil {
		return nil, operatorAnswer(err)
	}
	return a.GetKEKStatus(ctx, nil)
}

// event begins the record of what an operator does without the keeper.
func (a admin) event(ctx context.Context, op, reason string) audit.Event {
	o := by(ctx, reason)
	return o.Event(op)
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
