package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/keys"
)

// TestServeWarns: what keeps the server from answering, or soon will, and secrets
// that others can read, each with the file's name; and nothing else.
func TestServeWarns(t *testing.T) {
	t.Parallel()
	dir := initKMS(t)
	config, err := readKMSConfig(filepath.Join(dir, kmsConfigName))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	k := &kmsServer{config: config, log: slog.New(slog.NewTextHandler(&text, nil))}
	said := func(now time.Time) string {
		defer text.Reset()
		k.warn(now)
		return text.String()
	}
	now := time.Now()
	if s := said(now); s != "" {
		t.Errorf("nothing is wrong: %s", s)
	}
	end := now.Add(kmsCertificateTTL)
	if s := said(end.Add(-13 * 24 * time.Hour)); !strings.Contains(s, `level=WARN msg="the certificate ends soon`) || !strings.Contains(s, "server.crt") {
		t.Errorf("13 days before its end: %s", s)
	}
	if s := said(end.Add(-15 * 24 * time.Hour)); s != "" {
		t.Errorf("15 days before its end: %s", s)
	}
	if s := said(end.Add(time.Minute)); !strings.Contains(s, `level=ERROR msg="the certificate has ended`) || strings.Contains(s, "WARN") {
		t.Errorf("after its end: %s", s)
	}
	for _, name := range []string{"kek.key", "server.key", "kek.json"} {
		path := filepath.Join(dir, name)
		for mode, loud := range map[os.FileMode]bool{0o644: true, 0o620: true, 0o604: true, 0o640: false, 0o400: false} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			s := said(now)
			if got := strings.Contains(s, "level=WARN") && strings.Contains(s, name) && strings.Count(s, "\n") == 1; got != loud || !loud && s != "" {
				t.Errorf("%s, %o: %s", name, mode, s)
			}
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestServeWarnsOnReload: the same at the start, and when the certificate's files are
// read again.
func TestServeWarnsOnReload(t *testing.T) {
	t.Parallel()
	dir := initKMS(t)
	path := filepath.Join(dir, "server.key")
	open := func(mode os.FileMode) {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	open(0o644)
	s := serveDir(t, dir, func(config string) string { return config })
	warned := func() int { return strings.Count(s.log(), "a secret file is open to others") }
	s.eventually("it warns", func() bool { return warned() == 1 })
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.node().Enroll(t.Context(), keys.Request{}); err != nil {
		t.Fatal(err)
	}
	s.eventually("it warns again", func() bool { return warned() >= 2 && strings.Contains(s.log(), "certificates were read again") })
}
