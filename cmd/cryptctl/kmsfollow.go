package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/wire"
)

// local reads a directory, and goes on with what is new in it.
func (t *kmsTail) local(ctx context.Context, dir string, show *kmsRecords) error {
	if err := mustBeLog(dir); err != nil {
		return err
	}
	from, err := audit.Last(dir, int(t.lines), t.wants)
	if err != nil {
		return err
	}
	for c := audit.NewCursor(dir, from); ; {
		for r, err := range c.Records() {
			if err == nil && t.wants(r) {
				err = show.record(r)
			}
			if err != nil {
				return err
			}
		}
		if !t.follow {
			return nil
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// remote asks a key server.
func (t *kmsTail) remote(ctx context.Context, a *kmsAdmin, show *kmsRecords) error {
	s, err := a.TailAudit(ctx, &wire.TailAuditRequest{LastRecords: t.lines, Node: t.node})
	return each(s, err, func(r *wire.AuditRecord) error { return show.record(recordOf(r)) })
}

// kmsFollower follows the log of a key server from one connection to the next: a
// server ends each in time, and may be started anew.
type kmsFollower struct {
	*kmsTail
	dial func() (*kmsAdmin, error) // reads the certificate again
	note func(error)               // told why it does not go on, once until it does
	wait time.Duration             // before the second attempt
	next uint64                    // the record that comes next; 0 before the first connection
}

// maxFollowWait bounds the time between attempts.
const maxFollowWait = 30 * time.Second

// follow ends with the context, with an error of the first connection, or with one
// that another attempt does not mend.
func (f *kmsFollower) follow(ctx context.Context, show *kmsRecords) error {
	for wait := f.wait; ; {
		begun := f.next
		reached, err := f.connection(ctx, show)
		if ctx.Err() != nil || begun == 0 && !reached || !cutOff(err) {
			return err
		}
		switch {
		case reached: // it worked until it was cut off
			wait = f.wait
		case wait == f.wait:
			f.note(err)
			fallthrough
		default:
			wait = min(2*wait, maxFollowWait)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// connection shows what comes on one connection. reached says that the server
// answered.
func (f *kmsFollower) connection(ctx context.Context, show *kmsRecords) (reached bool, err error) {
	a, err := f.dial()
	if err != nil {
		return false, err
	}
	if a.ClientConn != nil {
		defer a.Close()
	}
	end, err := lastRecord(ctx, a)
	if err != nil {
		return false, err
	}
	r := &wire.TailAuditRequest{LastRecords: f.lines, Node: f.node, Follow: true, From: f.next}
	switch {
	case f.next > end+1:
		return true, fmt.Errorf("the key server's log ends with record %d, and record %d was there before: it was cut, or it is another server's; check it with cryptctl kms audit verify and a head that was kept", end, f.next-1)
	case f.next == 0:
		if f.next = end + 1; f.lines == 0 {
			r.From = f.next
		}
	}
	s, err := a.TailAudit(ctx, r)
	return true, each(s, err, func(r *wire.AuditRecord) error {
		f.next = max(f.next, r.GetSequence()+1)
		return show.record(recordOf(r))
	})
}

// lastRecord is the number of the last record of a server's log; 0 if it has none.
func lastRecord(ctx context.Context, a *kmsAdmin) (end uint64, err error) {
	s, err := a.TailAudit(ctx, &wire.TailAuditRequest{LastRecords: 1})
	err = each(s, err, func(r *wire.AuditRecord) error {
		end = r.GetSequence()
		return nil
	})
	return end, err
}

// cutOff reports whether a stream ended for a reason that another connection mends.
func cutOff(err error) bool {
	return err == nil || refusedAs(err, codes.Unavailable) || refusedAs(err, codes.Canceled) || refusedAs(err, codes.DeadlineExceeded)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
