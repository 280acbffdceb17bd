package server

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"

	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/wire"
)

// Backup implements the service. The record of a backup that was sent names its
// SHA-256 and a record before it: what was changed up to there is in it.
func (a admin) Backup(_ *wire.BackupRequest, out wire.Admin_BackupServer) error {
	if a.o.Parts.Store == nil {
		return notHere("its store is backed up by tools of its own")
	}
	before := uint64(0)
	if log, ok := a.o.Audit.(interface{ Head() audit.Head }); ok {
		before = log.Head().Seq
	}
	event := a.event(out.Context(), "backup", "")
	if err := a.append(event); err != nil {
		return err
	}
	c := &chunks{out, sha256.New()}
	err := a.o.Parts.Store.Backup(c)
	sum := c.all.Sum(nil)
	if event.Outcome, event.Detail = "done", backupDetail(before, sum); err != nil {
		event.Outcome, event.Detail = "failed", err.Error()
	}
	if a.note(event); err != nil {
		return operatorAnswer(err)
	}
	return out.Send(&wire.BackupChunk{Sha256: sum})
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
			return 0, errors.New(status.Convert(err).Message()) // it goes on record
		}
	}
	return c.all.Write(p)
}

const backupText = "sha256 %s, of the store after record %d or later"

// backupDetail is what the record of a backup says.
func backupDetail(before uint64, sum []byte) string {
	return fmt.Sprintf(backupText, hex.EncodeToString(sum), before)
}

// BackupOf reports whether a record is that of the backup with this SHA-256, and
// gives the record up to which all changes are in it.
func BackupOf(r audit.Record, sum []byte) (before uint64, ok bool) {
	if r.Op != "backup" || r.Outcome != "done" {
		return 0, false
	}
	var text string
	if _, err := fmt.Sscanf(r.Detail, "sha256 %64s", &text); err != nil || text != hex.EncodeToString(sum) {
		return 0, false
	}
	_, err := fmt.Sscanf(r.Detail, "sha256 "+text+", of the store after record %d", &before)
	return before, err == nil
}
