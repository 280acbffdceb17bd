package keeper

import (
	"log/slog"
	"sync"

	"github.com/cryptctl/cryptctl/kms/audit"
)

// maxOwed bounds the records that wait for the log: the rest is in the server's own
// log only.
const maxOwed = 1000

// owed are records of changes that were made while the audit log took none.
type owed struct {
	mu     sync.Mutex
	events []audit.Event
}

// owe keeps the record of a change that was made for when the log works again. Until
// then the server's own log is what says so.
func (k *Keeper) owe(e audit.Event, why error) {
	e.Time = k.o.Now()
	k.log().Error("a change is made and not in the audit log; it is appended when that works again, if this server goes on until then",
		"op", e.Op, "node", e.Node, "actor", e.Actor, "role", e.Role, "serial", e.Serial, "address", e.Address,
		"reason", e.Reason, "before", e.Before, "after", e.After, "error", why)
	e.Detail = "recorded late: the log took no records"
	k.owed.mu.Lock()
	defer k.owed.mu.Unlock()
	if len(k.owed.events) < maxOwed {
		k.owed.events = append(k.owed.events, e)
	}
}

// payOwed appends what is owed, with the time of the change, until one fails.
func (k *Keeper) payOwed() {
	k.owed.mu.Lock()
	defer k.owed.mu.Unlock()
	for len(k.owed.events) > 0 {
		if k.o.Audit.Append(k.owed.events[0]) != nil {
			return
		}
		k.owed.events = k.owed.events[1:]
	}
}

func (k *Keeper) log() *slog.Logger {
	if k.o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return k.o.Log
}
