package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/wire"
)

const (
	noAudit    = "its audit log is kept elsewhere"
	followEach = 500 * time.Millisecond
)

// TailAudit implements the service.
func (a admin) TailAudit(r *wire.TailAuditRequest, out wire.Admin_TailAuditServer) error {
	dir := a.o.Parts.AuditDir
	if dir == "" {
		return notHere(noAudit)
	}
	node, err := blob.ParseNode(r.GetNode())
	if r.GetNode() != "" && err != nil {
		return invalid("node", err)
	}
	log, ok := a.o.Audit.(interface{ Head() audit.Head })
	if !ok {
		return notHere(noAudit)
	}
	from, err := a.tailFrom(out.Context(), dir, r, log.Head().Seq, node)
	if err != nil {
		return err
	}
	records := audit.NewCursor(dir, from)
	for {
		if from, err = tail(out, records, from, node); err != nil {
			return err
		}
		if !r.GetFollow() {
			return nil
		}
		for wait := true; wait; wait = log.Head().Seq < from { // files are read when there is something new
			select {
			case <-out.Context().Done():
				return status.FromContextError(out.Context().Err()).Err()
			case <-time.After(followEach):
			}
		}
	}
}

// tail sends the records that there are, and returns the number of the next one.
func tail(out wire.Admin_TailAuditServer, records *audit.Cursor, from uint64, node blob.Node) (next uint64, err error) {
	for rec, err := range records.Records() {
		if err != nil {
			return from, status.Error(codes.DataLoss, err.Error())
		}
		from = rec.Seq + 1
		if node != "" && rec.Node != string(node) {
			continue
		}
		if err := out.Send(recordOf(rec)); err != nil {
			return from, err
		}
	}
	return from, nil
}

// tailFrom is the number of the first record that is wanted of a log that ends with
// record end.
func (a admin) tailFrom(ctx context.Context, dir string, r *wire.TailAuditRequest, end uint64, node blob.Node) (from uint64, err error) {
	last := r.GetLastRecords()
	switch {
	case r.GetFrom() > 0:
		return r.GetFrom(), nil
	case node == "" || last == 0:
		return end + 1 - min(uint64(last), end), nil
	}
	err = a.alone(ctx, func() error {
		from, err = audit.Last(dir, int(last), func(rec audit.Record) bool { return rec.Node == string(node) })
		return err
	})
	if err != nil && status.Code(err) == codes.Unknown {
		err = status.Error(codes.DataLoss, err.Error())
	}
	return from, err
}

// alone reads all of the log, or much of it, when nobody else does.
func (a admin) alone(ctx context.Context, read func() error) error {
	select {
	case a.reading <- struct{}{}:
		defer func() { <-a.reading }()
		return read()
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

func recordOf(r audit.Record) *wire.AuditRecord {
	return &wire.AuditRecord{
		Sequence: r.Seq, Time: timestamp(r.Time), Op: r.Op, Node: r.Node, Actor: r.Actor, Address: r.Address,
		Role: r.Role, Serial: r.Serial, Before: r.Before, After: r.After, Code: r.Code,
		Allowed: r.Outcome == "allowed" || r.Outcome == "done", Outcome: r.Outcome, Reason: r.Reason, Rule: r.Rule,
		KeyVersion: r.KeyVersion, Detail: r.Detail, Previous: r.Prev.Hash[:], Hash: r.Hash[:],
	}
}

// VerifyAudit implements the service.
func (a admin) VerifyAudit(ctx context.Context, r *wire.VerifyAuditRequest) (*wire.VerifyAuditResponse, error) {
	if a.o.Parts.AuditDir == "" {
		return nil, notHere(noAudit)
	}
	heads, err := readHeads(r.GetHeads())
	if err != nil {
		return nil, err
	}
	var report audit.Report
	err = a.alone(ctx, func() (err error) {
		report, err = audit.Verify(ctx, a.o.Parts.AuditDir, heads...)
		return err
	})
	out := &wire.VerifyAuditResponse{
		Ok: err == nil, Records: report.Records, First: report.First, Unfinished: uint64(report.Unfinished),
		Head: &wire.AuditHead{Sequence: report.Last.Seq, Hash: report.Last.Hash[:]},
	}
	fault, ok := errors.AsType[*audit.Fault](err)
	if err != nil && !ok {
		return nil, operatorAnswer(err)
	}
	if ok {
		out.BrokenAt, out.Detail = fault.Seq, fault.Error()
	}
	return out, nil
}

// maxHeads bounds the heads that one call gives: each record is held against all.
const maxHeads = 100

func readHeads(in []*wire.AuditHead) (out []audit.Head, err error) {
	if len(in) > maxHeads {
		return nil, status.Errorf(codes.InvalidArgument, "heads: %d, at most %d", len(in), maxHeads)
	}
	for i, h := range in {
		if len(h.GetHash()) != sha256.Size {
			return nil, status.Errorf(codes.InvalidArgument, "heads[%d].hash: %d bytes, not %d", i, len(h.GetHash()), sha256.Size)
		}
		out = append(out, audit.Head{Seq: h.GetSequence(), Hash: [sha256.Size]byte(h.GetHash())})
	}
	return out, nil
}
