package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

// TestKMSLogging: the key server's log goes to the destinations of its file, its
// last words too.
func TestKMSLogging(t *testing.T) {
	t.Parallel()
	to, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	config, err := parseKMSConfig(fmt.Appendf(nil, "logging: {destinations: [{endpoint: 'udp://%s/', format: json_lines, extraTags: {cluster: one}}]}", to.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	k := &kmsServer{config: config}
	k.startLog(slog.NewTextHandler(io.Discard, nil))
	k.log.Info("listening", "for", "nodes")
	k.closes = append(k.closes, func() { k.log.Error("closing failed") })
	k.close()
	if err := to.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"listening", "closing failed"} {
		buf := make([]byte, 1<<16)
		n, _, err := to.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		if err := json.Unmarshal(buf[:n], &got); err != nil || got["msg"] != want || got["talos-service"] != "cryptctl-kms" || got["cluster"] != "one" {
			t.Errorf("%s: %v", buf[:n], err)
		}
	}
}
