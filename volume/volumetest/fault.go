package volumetest

import (
	"fmt"
	"slices"
	"strings"
)

// Call is one call of the code under test.
type Call struct {
	Method string
	// Args are its texts: labels, names of mappings, directories and file systems;
	// a device is given by its label or the name of its mapping.
	Args []string
	Err  error
}

// String returns the call as "Mkfs luks2-STATE xfs".
func (c Call) String() string { return strings.Join(append([]string{c.Method}, c.Args...), " ") }

// fault is what goes wrong at the n-th call of a method, or of any.
type fault struct {
	method string // "" for any
	n      int    // from 1, counted down
	err    error
	cut    bool
	after  bool // the call has had its effect
}

// Calls returns what was called since the machine came up, in order; with
// methods given, only those.
func (s *System) Calls(methods ...string) (calls []Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if len(methods) == 0 || slices.Contains(methods, c.Method) {
			calls = append(calls, c)
		}
	}
	return calls
}

// FailAt makes the n-th call of a method from now on, or of any when it is "",
// fail without effect. n counts from 1.
func (s *System) FailAt(method string, n int, err error) {
	s.inject(fault{method: method, n: n, err: err})
}

// CutBefore cuts the power at the n-th call of a method from now on, or of any
// when it is "", before it does anything.
func (s *System) CutBefore(method string, n int) {
	s.inject(fault{method: method, n: n, cut: true})
}

// CutAfter cuts the power right after the n-th call of a method from now on, or of
// any when it is "", has done all it does.
func (s *System) CutAfter(method string, n int) {
	s.inject(fault{method: method, n: n, cut: true, after: true})
}

func (s *System) inject(f fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f)
}

// call runs a method with its faults, and logs it.
func (s *System) call(method string, args []string, do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.faulty(method, do)
	if err != nil {
		err = fmt.Errorf("%s: %w", strings.ToLower(method), err)
	}
	s.calls = append(s.calls, Call{method, args, err})
	return err
}

func (s *System) faulty(method string, do func() error) error {
	if s.off {
		return ErrPowerCut
	}
	now := s.due(method)
	switch {
	case now.cut && !now.after:
		s.off = true
		return ErrPowerCut
	case now.err != nil:
		return now.err
	}
	err := do()
	if now.cut {
		s.off = true
		return ErrPowerCut
	}
	return err
}

// due counts the faults down and returns the one whose call this is.
func (s *System) due(method string) (now fault) {
	for i := range s.faults {
		f := &s.faults[i]
		if f.method != "" && f.method != method {
			continue
		}
		if f.n--; f.n == 0 {
			now = *f
		}
	}
	return now
}
