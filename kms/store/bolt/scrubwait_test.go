package bolt

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestScrubWaits: a Scrub waits for a backup that is being copied as long as its
// context lasts, says what it waited for, and holds up no writer.
func TestScrubWaits(t *testing.T) {
	db, err := Open(filepath.Join(t.TempDir(), "kms.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.copying <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	said := make(chan error, 1)
	go func() { said <- db.Scrub(ctx) }()
	if _, err := db.Swap(t.Context(), "a", 0, []byte("value")); err != nil {
		t.Error(err)
	}
	if err := <-said; err == nil || !strings.Contains(err.Error(), "a backup is running") {
		t.Errorf("%v", err)
	}
	<-db.copying
	if err := db.Scrub(t.Context()); err != nil {
		t.Error(err)
	}
}
