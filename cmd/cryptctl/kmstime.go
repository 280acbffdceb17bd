package main

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// timeFlag reads a time, or a time from now; nil for none.
func timeFlag(name, text string) (*timestamppb.Timestamp, error) {
	at, _, err := readTime(name, text, 1)
	return at, err
}

// endFlag reads the time of an end, which is to come; nil for none. A day ends with
// its last second, in UTC.
func endFlag(name, text string) (*timestamppb.Timestamp, error) {
	at, day, err := readTime(name, text, 1)
	if err != nil || at == nil {
		return nil, err
	}
	if day {
		at = timestamppb.New(at.AsTime().AddDate(0, 0, 1))
	}
	if !at.AsTime().After(time.Now()) {
		return nil, usageError("--%s %q: is over (%s); give a time to come", name, text, at.AsTime().Format(time.RFC3339))
	}
	return at, nil
}

// agoFlag reads a time that is over, or how long ago it was.
func agoFlag(name, text string) (*timestamppb.Timestamp, error) {
	at, _, err := readTime(name, text, -1)
	if err == nil && at == nil {
		err = usageError("--%s is missing: a time such as 2026-12-31T12:00:00Z, or how long ago, such as 72h", name)
	}
	if err == nil && at.AsTime().After(time.Now()) {
		err = usageError("--%s %q: is in the future", name, text)
	}
	return at, err
}

// readTime reads a time, a day, or a duration from now: forward with 1, back with -1.
func readTime(name, text string, direction time.Duration) (at *timestamppb.Timestamp, day bool, err error) {
	if text == "" {
		return nil, false, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return timestamppb.New(time.Now().Add(direction * d)), false, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return timestamppb.New(t), layout == time.DateOnly, nil
		}
	}
	way := "from now"
	if direction < 0 {
		way = "ago"
	}
	return nil, false, usageError("--%s %q: give a time such as 2026-12-31T12:00:00Z, a day such as 2026-12-31, or how long %s, such as 72h", name, text, way)
}
