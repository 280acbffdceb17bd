package lukstest

import "errors"

// ErrFault is what an operation fails with when a [Fault] names no other error.
var ErrFault = errors.New("fault set by the test")

// Fault makes one operation of a [Disk] go wrong.
type Fault struct {
	// After is how many writes and syncs succeed before it.
	After int
	// Sectors is how much of a write reaches the disk nevertheless; a negative
	// number means all of it. A sync that goes wrong makes nothing durable.
	Sectors int
	// Silent reports success all the same, as a lying disk does.
	Silent bool
	// Err is what the operation fails with. Default [ErrFault].
	Err error
}

// Fail sets the fault, in place of one that was set before and not met.
func (d *Disk) Fail(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault, d.faults = &f, f.After
}

// Failed reports whether the fault that was set last was met.
func (d *Disk) Failed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fault != nil && d.faults < 0
}

// due returns the fault if it is this operation's turn.
func (d *Disk) due() *Fault {
	if d.fault == nil || d.faults < 0 {
		return nil
	}
	if d.faults--; d.faults >= 0 {
		return nil
	}
	return d.fault
}

func (f *Fault) err() error {
	if f.Err != nil {
		return f.Err
	}
	return ErrFault
}

// reaches returns how many bytes of a write reach the disk.
func (f *Fault) reaches(p []byte, off int64) int {
	if f.Sectors < 0 {
		return len(p)
	}
	first := SectorSize - int(off%SectorSize) // the write may begin within a sector
	return min(len(p), max(0, f.Sectors-1)*SectorSize+min(f.Sectors, 1)*first)
}
