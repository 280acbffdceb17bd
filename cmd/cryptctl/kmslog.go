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
	if err := logging.CheckNumber(len(l.Destinations)); err != nil {
		return nil, fmt.Errorf("logging.destinations: %w", err)
	}
	var all []logging.Destination
	for i, d := range l.Destinations {
		at := fmt.Sprintf("logging.destinations[%d]", i)
		if err := logging.CheckFormat(d.Format); err != nil {
			return nil, fmt.Errorf("%s.format: %w", at, err)
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

// startLog has the server's log sent to its destinations, too.
func (k *kmsServer) startLog(local slog.Handler) {
	s, log, end := remoteLog("cryptctl-kms", local)
	s.Set(k.config.logs)
	k.log = log
	k.closes = append(k.closes, end)
}

// remoteLog is a log whose records go to the sender's destinations, too. It never
// waits for one; at the end what is left is sent for a moment.
func remoteLog(service string, local slog.Handler) (s *logging.Sender, log *slog.Logger, end func()) {
	s = logging.NewSender(logging.Options{Service: service, Local: local})
	return s, slog.New(s.Handler(local)), func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		s.Close(ctx)
	}
}
