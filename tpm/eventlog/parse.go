package eventlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// Path is where Linux shows the log of the first TPM. It needs root, and a
// mounted securityfs.
const Path = "/sys/kernel/security/tpm0/binary_bios_measurements"

// Limits of what is read. Logs of real machines have 50 to 300 events and 10 to
// 200 KiB.
const (
	maxLog        = 8 << 20
	maxEvents     = 1 << 14
	maxAlgorithms = 16  // TPMs know fewer; the TCG's header file says 16 (HASH_COUNT)
	maxDigest     = 128 // bytes, of an algorithm that is not known here
)

var (
	// ErrLegacy says that a log has the old format: SHA-1 digests only.
	ErrLegacy = errors.New("the event log is in the old format, which has SHA-1 digests only: " +
		"switch the firmware's TPM setting to TPM 2.0 with a SHA-256 bank")
	// ErrNone says that the system shows no log.
	ErrNone = errors.New("the system shows no event log")
)

// Read reads the log in a file, Path as a rule. ErrNone says that there is none.
func Read(path string) (*Log, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w (%s): there is no TPM, no securityfs is mounted, or the firmware keeps none", ErrNone, path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxLog+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// Log is a log that was read.
type Log struct {
	// Events are all events; the first is the header, of type EvNoAction. Their
	// digests and data share the memory that was given to Parse.
	Events []Event

	algorithms []algorithm
}

// algorithm is a bank of the log and the length of its digests.
type algorithm struct {
	bank pcr.Bank
	size int
}

// Banks returns the banks that the log's header names, in its order, those that
// this program cannot compute with among them.
func (l *Log) Banks() []pcr.Bank {
	banks := make([]pcr.Bank, len(l.algorithms))
	for i, a := range l.algorithms {
		banks[i] = a.bank
	}
	return banks
}

// Parse reads a log. Padding with zeros or ones after the last event, as some
// firmware has it, is allowed; anything else there is an error.
func Parse(raw []byte) (*Log, error) {
	switch {
	case len(raw) == 0:
		return nil, fmt.Errorf("%w: it is empty", ErrNone)
	case len(raw) > maxLog:
		return nil, fmt.Errorf("the event log has more than %d bytes", maxLog)
	}
	c := &cursor{data: raw}
	l := &Log{}
	header, narrow, err := l.readHeader(c)
	if err != nil {
		return nil, fmt.Errorf("event 0 of the event log: %w", err)
	}
	l.Events = append(l.Events, header)
	for c.left() > 0 && !padding(raw[c.at:]) {
		number, from := len(l.Events), c.at
		if number == maxEvents {
			return nil, fmt.Errorf("the event log has more than %d events", maxEvents)
		}
		e, err := l.readEvent(c)
		if err != nil {
			return nil, fmt.Errorf("event %d of the event log, at byte %d: %w", number, from, err)
		}
		e.Number, e.narrow = number, narrow
		l.Events = append(l.Events, e)
	}
	return l, nil
}

// padding says whether all bytes are zeros, or all ones. No event begins with 12
// of either: one would have no digest, the other too many.
func padding(b []byte) bool {
	for _, v := range b {
		if v != b[0] {
			return false
		}
	}
	return b[0] == 0 || b[0] == 0xff
}

// readHeader reads the first event and what it says of all others.
func (l *Log) readHeader(c *cursor) (e Event, narrow bool, err error) {
	e.PCR, e.Type = c.u32(), Type(c.u32())
	c.take(20)
	e.Data = c.take(uint64(c.u32()))
	if c.err != nil {
		return e, false, c.err
	}
	data := &cursor{data: e.Data}
	signature := data.take(16)
	switch {
	case e.Type != EvNoAction || !bytes.HasPrefix(signature, []byte("Spec ID Event")):
		return e, false, ErrLegacy
	case string(signature) == "Spec ID Event00\x00", string(signature) == "Spec ID Event02\x00":
		return e, false, ErrLegacy
	case string(signature) != "Spec ID Event03\x00":
		return e, false, fmt.Errorf("the log is of the unknown kind %s", quote(string(signature)))
	}
	data.take(4 + 1 + 1 + 1) // platform class, version of the specification
	width := data.u8()
	if err := l.readAlgorithms(data); err != nil {
		return e, false, err
	}
	data.take(uint64(data.u8())) // of the vendor
	if data.err != nil {
		return e, false, fmt.Errorf("the header: %w", data.err)
	}
	return e, width == 1, nil
}

// readAlgorithms reads the banks and the sizes of their digests.
func (l *Log) readAlgorithms(data *cursor) error {
	count := data.u32()
	if data.err == nil && (count == 0 || count > maxAlgorithms) {
		return fmt.Errorf("the header names %d hash algorithms, allowed are 1 to %d", count, maxAlgorithms)
	}
	for range count {
		a := algorithm{pcr.Bank(data.u16()), int(data.u16())}
		if data.err != nil {
			return fmt.Errorf("the header: %w", data.err)
		}
		if _, twice := l.size(a.bank); twice {
			return fmt.Errorf("the header names %s twice", a.bank)
		}
		if a.size == 0 || a.size > maxDigest || a.bank.Known() && a.size != a.bank.Size() {
			return fmt.Errorf("the header gives digests of %s a length of %d bytes", a.bank, a.size)
		}
		l.algorithms = append(l.algorithms, a)
	}
	return nil
}

// size returns the length of a bank's digests, and whether the header has it.
func (l *Log) size(bank pcr.Bank) (int, bool) {
	for _, a := range l.algorithms {
		if a.bank == bank {
			return a.size, true
		}
	}
	return 0, false
}

// readEvent reads one event after the header.
func (l *Log) readEvent(c *cursor) (e Event, err error) {
	e.PCR, e.Type = c.u32(), Type(c.u32())
	count := c.u32()
	switch {
	case c.err != nil:
		return e, c.err
	case count == 0 || count > uint32(len(l.algorithms)):
		return e, fmt.Errorf("it has %d digests, the header names %d hash algorithms", count, len(l.algorithms))
	case e.PCR >= pcr.Count && e.Type != EvNoAction:
		return e, fmt.Errorf("it is of PCR %d, there are 0 to %d", e.PCR, pcr.Count-1)
	}
	e.Digests = make([]Digest, 0, count)
	for range count {
		bank := pcr.Bank(c.u16())
		size, named := l.size(bank)
		switch {
		case c.err != nil:
			return e, c.err
		case !named:
			return e, fmt.Errorf("it has a digest of %s, which the header does not name", bank)
		case e.Digest(bank) != nil:
			return e, fmt.Errorf("it has two digests of %s", bank)
		}
		e.Digests = append(e.Digests, Digest{bank, c.take(uint64(size))})
	}
	size, left := c.u32(), c.left()
	if c.err != nil {
		return e, c.err
	}
	if e.Data = c.take(uint64(size)); c.err != nil {
		return e, fmt.Errorf("its data should have %d bytes, %d are left", size, left)
	}
	return e, nil
}
