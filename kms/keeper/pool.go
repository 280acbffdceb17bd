package keeper

import (
	"slices"
	"sync"

	"github.com/cryptctl/cryptctl/secret"
)

// maxIdle bounds the locked pages that wait for the next answer: with as many
// answers on their way to the audit log at a time, none is mapped anew.
const maxIdle = 512

// pool keeps zeroed secrets by their length: nodes seal keys, and those all have
// the same few lengths.
type pool struct {
	mu   sync.Mutex
	idle map[int][]*secret.Bytes
	n    int
}

// take returns a secret of n bytes, all zero.
func (p *pool) take(n int) *secret.Bytes {
	p.mu.Lock()
	defer p.mu.Unlock()
	free := p.idle[n]
	if len(free) == 0 {
		return secret.New(n)
	}
	p.n--
	p.idle[n] = free[:len(free)-1]
	return free[len(free)-1]
}

// give takes a secret back, which must not be used any more.
func (p *pool) give(s *secret.Bytes) {
	if s.Len() == 0 {
		return // never was, or wiped by the caller
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Contains(p.idle[s.Len()], s) {
		return // given back twice: it must not be given out twice
	}
	if p.n >= maxIdle {
		s.Wipe()
		return
	}
	clear(s.Bytes())
	if p.idle == nil {
		p.idle = map[int][]*secret.Bytes{}
	}
	p.n++
	p.idle[s.Len()] = append(p.idle[s.Len()], s)
}

func (p *pool) wipe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, free := range p.idle {
		for _, s := range free {
			s.Wipe()
		}
	}
	p.idle, p.n = nil, 0
}
