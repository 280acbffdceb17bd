package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/logging"
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
	conf, err := parseKMSConfig(fmt.Appendf(nil, "logging: {destinations: [{endpoint: 'udp://%s/', format: json_lines, extraTags: {cluster: one}}]}", to.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	k := &kmsServer{config: conf}
	k.startLog(slog.NewTextHandler(io.Discard, nil))
	k.log.Info("listening", "for", "nodes")
	k.closes = append(k.closes, func() { k.log.Error("closing failed") })
	k.close()
	wantLogs(t, to, "cryptctl-kms", "one", "listening", "closing failed")
}

// wantLogs wants records to have arrived, with the tag cluster.
func wantLogs(t *testing.T, at net.PacketConn, service, cluster string, messages ...string) {
	t.Helper()
	if err := at.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, want := range messages {
		buf := make([]byte, 1<<16)
		n, _, err := at.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		if err := json.Unmarshal(buf[:n], &got); err != nil || got["msg"] != want || got["talos-service"] != service || got["cluster"] != cluster {
			t.Errorf("%s: %v", buf[:n], err)
		}
	}
}

// TestBootLogging: what `boot` logs goes where the configuration in force says, what
// came before it and the last words too. With --once nothing is logged.
func TestBootLogging(t *testing.T) {
	t.Parallel()
	to, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	cmd := &cobra.Command{}
	cmd.SetErr(io.Discard)
	cmd.SetContext(t.Context())
	opts, free, err := new(bootFlags).options(cmd)
	if err != nil {
		t.Fatal(err)
	}
	opts.Keys.Log.Warn("STATE does not open yet")
	opts.Configured(&config.Config{Logging: []logging.Destination{{Network: "udp", Address: to.LocalAddr().String(), Tags: map[string]string{"cluster": "two"}}}})
	opts.Keys.Log.Info("STATE is open")
	free()
	wantLogs(t, to, "cryptctl", "two", "STATE does not open yet", "STATE is open")
	if opts, _, err = (&bootFlags{once: true}).options(cmd); err != nil || opts.Keys.Log != nil || opts.Configured != nil {
		t.Errorf("--once: %+v, %v", opts, err)
	}
}
