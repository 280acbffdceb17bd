package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"slices"
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
	node, err := blob.ParseNode(r.GetUuid())
	if r.GetUuid() != "" && err != nil {
		return invalid("uuid", err)
	}
	from, err := a.tailFrom(r)
	if err != nil {
		return err
	}
	for {
		for rec, err := range audit.Read(dir, from) {
			if err != nil {
				return status.Error(codes.DataLoss, err.Error())
			}
			from = rec.Seq + 1
			if node != "" && rec.Node != string(node) {
				continue
			}
			if err := out.Send(recordOf(rec)); err != nil {
				return err
			}
		}
		if !r.GetFollow() {
			return nil
		}
		select {
		case <-out.Context().Done():
			return status.FromContextError(out.Context().Err()).Err()
		case <-time.After(followEach):
		}
	}
}

// tailFrom is the number of the first record that is wanted.
func (a admin) tailFrom(r *wire.TailAuditRequest) (uint64, error) {
	if r.GetFrom() > 0 {
		return r.GetFrom(), nil
	}
	log, ok := a.o.Audit.(interface{ Head() audit.Head })
	if !ok {
		return 0, notHere(noAudit)
	}
	end, last := log.Head().Seq, uint64(r.GetLastRecords())
	return end + 1 - min(last, end), nil
}

func recordOf(r audit.Record) *wire.AuditRecord {
	return &wire.AuditRecord{
		Sequence: r.Seq, Time: timestamp(r.Time), Action: r.Op, Uuid: r.Node, Actor: r.Actor, Address: r.Source,
		Allowed: r.Outcome == "allowed" || r.Outcome == "done", Rule: r.Rule, Detail: detailOf(r.Event),
		Previous: r.Prev.Hash[:], Hash: r.Hash[:],
	}
}

// detailOf is what the message has no field of its own for.
func detailOf(e audit.Event) string {
	text := e.Outcome
	for _, more := range []string{e.Reason, e.Detail} {
		if more != "" {
			text += ": " + more
		}
	}
	return text
}

// VerifyAudit implements the service.
func (a admin) VerifyAudit(context.Context, *wire.VerifyAuditRequest) (*wire.VerifyAuditResponse, error) {
	if a.o.Parts.AuditDir == "" {
		return nil, notHere(noAudit)
	}
	report, err := audit.Verify(a.o.Parts.AuditDir)
	out := &wire.VerifyAuditResponse{Ok: err == nil, Records: report.Records, Head: report.Last.Hash[:]}
	fault, ok := errors.AsType[*audit.Fault](err)
	if err != nil && !ok {
		return nil, operatorAnswer(err)
	}
	if ok {
		out.BrokenAt, out.Detail = fault.Seq, fault.Error()
	}
	return out, nil
}

// Backup implements the service.
func (a admin) Backup(_ *wire.BackupRequest, out wire.Admin_BackupServer) error {
	if a.o.Parts.Store == nil {
		return notHere("its store is backed up by tools of its own")
	}
	event := a.event(out.Context(), "backup", "")
	if err := a.append(event); err != nil {
		return err
	}
	c := &chunks{out, sha256.New()}
	err := a.o.Parts.Store.Backup(c)
	if event.Outcome = "done"; err != nil {
		event.Outcome, event.Detail = "failed", err.Error()
	}
	if a.note(event); err != nil {
		return operatorAnswer(err)
	}
	return out.Send(&wire.BackupChunk{Sha256: c.all.Sum(nil)})
}

// maxChunk is the most that one message of a backup holds.
const maxChunk = 64 << 10

// chunks sends what is written to it.
type chunks struct {
	out wire.Admin_BackupServer
	all hash.Hash
}

// Write implements io.Writer.
func (c *chunks) Write(p []byte) (int, error) {
	for part := range slices.Chunk(p, maxChunk) {
		if err := c.out.Send(&wire.BackupChunk{Data: part}); err != nil {
			return 0, err
		}
	}
	return c.all.Write(p)
}
