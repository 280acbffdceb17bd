package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/cryptctl/cryptctl/logging"
)

// kmsLogging says where the key server's log goes besides the terminal, in the
// words of machine.logging.
type kmsLogging struct {
	Destinations []struct {
		Endpoint  string            `yaml:"endpoint"`
		Format    string            `yaml:"format"`
		ExtraTags map[string]string `yaml:"extraTags"`
	} `yaml:"destinations"`
}

// destinations reads what the file says.
func (l *kmsLogging) destinations() ([]logging.Destination, error) {
	var all []logging.Destination
	for i, d := range l.Destinations {
		at := fmt.Sprintf("logging.destinations[%d]", i)
		if d.Format != "json_lines" {
			return nil, fmt.Errorf("%s.format: is not json_lines, the only format there is", at)
		}
		network, address, err := logging.ParseEndpoint(d.Endpoint)
		if err != nil {
			return nil, fmt.Errorf("%s.endpoint: %w", at, err)
		}
		if err := logging.CheckTags(d.ExtraTags); err != nil {
			return nil, fmt.Errorf("%s.extraTags: %w", at, err)
		}
		all = append(all, logging.Destination{Network: network, Address: address, Tags: d.ExtraTags})
	}
	return all, nil
}

// startLog has the server's log sent to its destinations, too. It never waits for
// one; at the end what is left is sent for a moment.
func (k *kmsServer) startLog(local slog.Handler) {
	s := logging.NewSender(logging.Options{Service: "cryptctl-kms", Local: local})
	s.Set(k.config.logs)
	k.log = slog.New(s.Handler(local))
	k.closes = append(k.closes, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		s.Close(ctx)
	})
}
