package eventlog

import (
	"bytes"
	"compress/flate"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// maxUnpacked bounds the JSON of a packed record: a few bytes of DEFLATE can stand
// for a thousand times as many. The whole log of a machine makes 10 to 80 KiB.
const maxUnpacked = 64 << 10

// Pack gives a record in few bytes: its JSON, in DEFLATE (RFC 1951), 30 to 80
// bytes per event. It refuses one that Unpack would not read.
func (r *Record) Pack() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("pack a record: %w", err)
	}
	if len(text) > maxUnpacked {
		return nil, fmt.Errorf("pack a record: it has %d bytes, more than %d", len(text), maxUnpacked)
	}
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

// Unpack reads what Pack made, as strictly as ReadRecord, and with its kind of error.
func Unpack(packed []byte) (*Record, error) {
	from := bytes.NewReader(packed) // has ReadByte, so that no byte too many is taken
	text, err := io.ReadAll(io.LimitReader(flate.NewReader(from), maxUnpacked+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("it cannot be unpacked: %w", err)
	case len(text) > maxUnpacked:
		return nil, fmt.Errorf("it unpacks to more than %d bytes", maxUnpacked)
	case from.Len() > 0:
		return nil, fmt.Errorf("%d bytes follow it", from.Len())
	}
	return ReadRecord(text)
}

// ReadRecord reads the JSON of a record: no member that is not known, nothing
// behind it, a known bank, and one PCR or more, each once and in ascending order.
// The error says why it is none.
func ReadRecord(text []byte) (*Record, error) {
	r := new(Record)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows it")
	}
	bank, err := pcr.BankByName(r.Bank)
	if err != nil {
		return nil, err
	}
	if len(r.PCRs) == 0 {
		return nil, errors.New("it names no PCR")
	}
	last := -1
	for i := range r.PCRs {
		if err := r.PCRs[i].check(bank, last); err != nil {
			return nil, err
		}
		last = r.PCRs[i].PCR
	}
	return r, nil
}

func (p *RecordedPCR) check(bank pcr.Bank, last int) error {
	if p.PCR <= last || p.PCR >= pcr.Count {
		return fmt.Errorf("PCR %d does not exist, or does not come after PCR %d", p.PCR, last)
	}
	if b, err := hex.DecodeString(p.Value); err != nil || len(b) != bank.Size() {
		return fmt.Errorf("the value of PCR %d is none of %s", p.PCR, bank)
	}
	for _, e := range p.Events {
		if b, err := hex.DecodeString(e.Digest); err != nil || len(b) != shortDigest {
			return fmt.Errorf("a digest of PCR %d is not %d bytes", p.PCR, shortDigest)
		}
	}
	return nil
}
