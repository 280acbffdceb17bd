package uki

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// PCR is the register that systemd-stub measures the sections into.
const PCR = 11

// Options say what to predict.
type Options struct {
	// Stub is the version of the stub that will measure. It has to be known.
	Stub Stub
	// Banks are those to compute values of; none means SHA-256.
	Banks []pcr.Bank
	// Paths are the phase paths after which values are wanted; none means
	// pcr.SystemdPaths. The empty path is the value that the stub leaves.
	Paths []pcr.Path
}

// Prediction is what an image makes of PCR 11.
type Prediction struct {
	Stub     Stub
	Measured []Measurement // in the order of measuring
	Ignored  []string      // sections of the image that this stub does not measure
	Values   []Value       // for each bank, for each path
}

// Measurement is a section that is measured.
type Measurement struct {
	Name    string
	Size    int64
	Digests map[pcr.Bank][]byte // of its content
}

// Value is PCR 11 of one bank after a phase path.
type Value struct {
	Bank   pcr.Bank
	Path   pcr.Path
	Value  []byte
	Policy []byte // the digest of the policy that wants this value, SHA-256
}

// String writes the value as systemd-measure does.
func (v *Value) String() string {
	return fmt.Sprintf("%d:%s=%s", PCR, v.Bank, hex.EncodeToString(v.Value))
}

// Predict computes PCR 11. It fails if a section is there twice, or if it
// depends on the machine which one the stub takes.
func (s Sections) Predict(o Options) (*Prediction, error) {
	if o.Stub == 0 {
		return nil, ErrUnknownStub
	}
	if o.Stub < oldest {
		return nil, fmt.Errorf("%s does not measure into PCR %d", o.Stub, PCR)
	}
	banks := o.Banks
	if len(banks) == 0 {
		banks = []pcr.Bank{pcr.SHA256}
	}
	values := map[pcr.Bank][]byte{}
	for _, bank := range banks {
		if !bank.Known() || values[bank] != nil {
			return nil, fmt.Errorf("the bank %s is not known, or wanted twice", bank)
		}
		values[bank] = bank.Initial(PCR)
	}
	p := &Prediction{Stub: o.Stub}
	for _, name := range SectionNames() {
		if err := s.measure(p, name, values); err != nil {
			return nil, err
		}
	}
	return p, p.phases(banks, values, o.Paths)
}

// measure extends the section of a name, if there is one to measure.
func (s Sections) measure(p *Prediction, name string, values map[pcr.Bank][]byte) error {
	var found []Section
	for _, section := range s {
		if section.Name == name && section.Size > 0 {
			found = append(found, section)
		}
	}
	switch {
	case len(found) == 0:
		return nil
	case !p.Stub.Measures(name):
		p.Ignored = append(p.Ignored, name)
		return nil
	case byMachine(name):
		return fmt.Errorf("the image has a section %s, which is measured on machines that it fits only: there is no value for all machines", name)
	case len(found) > 1:
		return fmt.Errorf("there are two sections %s", name)
	}
	m, err := found[0].digest(values)
	if err != nil {
		return err
	}
	for bank, value := range values {
		value = bank.Extend(value, bank.Sum([]byte(name+"\x00")))
		values[bank] = bank.Extend(value, m.Digests[bank])
	}
	p.Measured = append(p.Measured, m)
	return nil
}

// digest reads a section once and hashes it for all banks.
func (s *Section) digest(banks map[pcr.Bank][]byte) (Measurement, error) {
	hashes, writers := map[pcr.Bank]hash.Hash{}, []io.Writer(nil)
	for bank := range banks {
		hashes[bank] = bank.New()
		writers = append(writers, hashes[bank])
	}
	m := Measurement{Name: s.Name, Size: s.Size, Digests: map[pcr.Bank][]byte{}}
	if err := s.writeTo(io.MultiWriter(writers...)); err != nil {
		return m, err
	}
	for bank, h := range hashes {
		m.Digests[bank] = h.Sum(nil)
	}
	return m, nil
}

func (p *Prediction) phases(banks []pcr.Bank, values map[pcr.Bank][]byte, paths []pcr.Path) error {
	if len(p.Measured) == 0 {
		return errors.New("nothing of the image is measured: give at least its kernel")
	}
	if len(paths) == 0 {
		paths = pcr.SystemdPaths()
	}
	for _, bank := range banks {
		for _, path := range paths {
			v := Value{Bank: bank, Path: path, Value: bank.ExtendWords(values[bank], path...)}
			var err error
			if v.Policy, err = pcr.Policy(bank, map[int][]byte{PCR: v.Value}); err != nil {
				return err
			}
			p.Values = append(p.Values, v)
		}
	}
	return nil
}
