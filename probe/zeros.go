package probe

import "bytes"

const (
	// smallArea is read to the last byte.
	smallArea = 64 * mib
	// samples is into how many parts a larger area is divided; sampleSize bytes
	// are read around every border between two. Borders, not middles: formats
	// that repeat their metadata do so at a power of two of the size or at equal
	// parts of it (the allocation groups of XFS are quarters by default).
	samples    = 512
	sampleSize = 16 << 10
	blockSize  = 4096
	chunk      = mib
)

// data returns a finding for the first byte that is not zero, if one is read.
func data(v *view) ([]Finding, error) {
	for _, s := range spans(v.from, v.size) {
		for at := s.start; at < s.end; at += chunk {
			b, err := v.at(at, min(chunk, s.end-at))
			if err != nil {
				return nil, err
			}
			if i := firstNonZero(b); i >= 0 {
				return []Finding{{KindData, at + int64(i), "data of no known format"}}, nil
			}
		}
	}
	return nil, nil
}

type span struct{ start, end int64 }

// spans returns what must be zero in [start, end), in ascending order: both
// edges, and between them all or samples.
func spans(start, end int64) []span {
	total := end - start
	if total <= 2*edge {
		return []span{{start, end}}
	}
	head, tail := start+edge, end-edge
	all := []span{{start, head}}
	if total <= smallArea {
		all = append(all, span{head, tail})
	} else {
		for i := int64(1); i < samples; i++ {
			border := (start + total/samples*i) / blockSize * blockSize
			at := border - sampleSize/2
			s := span{max(at, head), min(at+sampleSize, tail)}
			if s.start < s.end {
				all = append(all, s)
			}
		}
	}
	return append(all, span{tail, end})
}

// firstNonZero returns the index of the first byte that is not zero, or -1.
func firstNonZero(b []byte) int {
	var zero [blockSize]byte
	for at := 0; at < len(b); at += blockSize {
		part := b[at:min(at+blockSize, len(b))]
		if bytes.Equal(part, zero[:len(part)]) {
			continue
		}
		for i, c := range part {
			if c != 0 {
				return at + i
			}
		}
	}
	return -1
}
