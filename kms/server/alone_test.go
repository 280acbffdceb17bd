package server

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestAlone: one at a time reads the whole audit log, and who waits for it can give
// up.
func TestAlone(t *testing.T) {
	a := admin{Server: &Server{reading: make(chan struct{}, 1)}}
	asked := 0
	read := func() error { asked++; return nil }
	a.reading <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := a.alone(ctx, read); status.Code(err) != codes.DeadlineExceeded || asked != 0 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	<-a.reading
	for range 2 {
		if err := a.alone(t.Context(), read); err != nil {
			t.Error(err)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}
