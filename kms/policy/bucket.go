package policy

import "time"

// Limit is how many unseals a node may have: PerHour in the long run, Burst at
// once after a quiet time. The zero value limits nothing.
type Limit struct {
	PerHour int `json:"per_hour,omitempty"` // 1 to 1,000,000
	Burst   int `json:"burst,omitempty"`    // 1 to 10,000; 0: as many as PerHour, at most 10,000
}

// The bounds of a Limit: with them no sum of times here leaves 64 bits.
const (
	maxPerHour = 1_000_000
	maxBurst   = 10_000
)

// Bucket is the rate state of one node, a token bucket written down as one time:
// when it will be full again. The zero value is full.
type Bucket struct {
	FullAt time.Time
}

// Token is what was taken out of a bucket: the time that it takes to come back.
type Token time.Duration

// Return returns the bucket with a token put back: what it was taken for did not
// happen, and that was not the node's doing.
func (b Bucket) Return(t Token) Bucket { return Bucket{FullAt: b.FullAt.Add(-time.Duration(t))} }

// Take returns the bucket with one token less; or as it is and the time until
// there is one. The bucket given is not changed. Of a bucket that a clock filled
// too far ahead, and that was set back since, no more is left than of an empty
// one: so the bucket is to be kept in either case.
func (b Bucket) Take(l Limit, now time.Time) (after Bucket, took Token, wait time.Duration) {
	if l.PerHour <= 0 {
		return b, 0, 0
	}
	interval := time.Hour / time.Duration(min(l.PerHour, maxPerHour))
	burst := min(l.Burst, maxBurst)
	if burst <= 0 {
		burst = min(l.PerHour, maxBurst)
	}
	empty := now.Add(time.Duration(burst) * interval)
	if b.FullAt.After(empty) {
		b.FullAt = empty
	}
	full := b.FullAt
	if full.Before(now) {
		full = now
	}
	full = full.Add(interval)
	if over := full.Sub(empty); over > 0 {
		return b, 0, over
	}
	return Bucket{FullAt: full}, Token(interval), 0
}

// Full reports whether all tokens are there, so that the bucket can be dropped.
func (b Bucket) Full(now time.Time) bool { return !b.FullAt.After(now) }
