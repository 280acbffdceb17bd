package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/store"
)

// certificateWarning is how long before its end a certificate is worth a line; the
// alert rules say the same.
const certificateWarning = 14 * 24 * time.Hour

// storePatience is how long a store elsewhere may take to be there, if something is
// to be changed in it before nodes are served.
const storePatience = 30 * time.Second

// checkKEK refuses a keyset that is not that of the store, unless the version that
// it lacks wraps no key, or is given as lost. A store in etcd may be away: there the
// keeper finds it out later, and seals nothing.
func (k *kmsServer) checkKEK(ctx context.Context) error {
	lost := k.lostKEK
	if k.backup == nil && lost == "" {
		return nil
	}
	by := keeper.Operator{Reason: "--lost-kek", Name: "kms serve"}
	if lost == "" {
		by.Reason = "it wraps no key"
	}
	before := k.keeper.CheckKEK(ctx)
	for end := time.Now().Add(storePatience); errors.Is(before, store.ErrUnavailable) && time.Now().Before(end) && ctx.Err() == nil; before = k.keeper.CheckKEK(ctx) {
		time.Sleep(200 * time.Millisecond)
	}
	n, err := k.keeper.LostKEK(ctx, by, lost)
	switch {
	case err != nil:
		return fmt.Errorf("key-encryption key: %w", err)
	case before != nil:
		k.log.Warn("the store goes on without a version of the key-encryption key", "keys lost", n, "error", before)
	case lost != "":
		k.log.Warn("--lost-kek is not needed, the keyset is that of the store; leave it out", "version", lost)
	}
	missing, err := k.keeper.MissingKEK(ctx)
	if err != nil {
		return fmt.Errorf("key-encryption key: %w", err)
	}
	for version, n := range missing {
		k.log.Error("keys do not open, for the keyset lacks what wraps them; their nodes need a new key (cryptctl kms key rotate) and have to seal anew, or bring back that keyset file", "version", version, "keys", n)
	}
	return nil
}

// warn puts in the log what keeps the server from answering, or soon will, and
// secrets that others can read.
func (k *kmsServer) warn(now time.Time) {
	k.warnCertificate(now)
	c := k.config
	secrets := append([]*string{&c.TLS.Key, &c.ImportReferenceKey}, c.KEK.secrets()...)
	if e := c.Store.Etcd; e != nil {
		secrets = append(secrets, &e.Key)
	} else {
		secrets = append(secrets, &c.Store.File)
	}
	for _, path := range secrets {
		if path == nil || *path == "" {
			continue
		}
		// A group that may read is on purpose: systemd's credentials look so, too.
		if info, err := os.Stat(*path); err == nil && info.Mode().Perm()&0o027 != 0 {
			k.log.Warn("a secret file is open to others than its owner: chmod 600, and think about who read it", "file", *path, "mode", fmt.Sprintf("%04o", info.Mode().Perm()))
		}
	}
}

// secrets are the files that open the key-encryption key, or are it.
func (k *kmsKEK) secrets() []*string {
	if k.Transit != nil {
		return []*string{&k.Transit.TokenFile}
	}
	return k.paths()
}

func (k *kmsServer) warnCertificate(now time.Time) {
	path := k.config.TLS.Certificate
	all, err := readCertificates(path, now)
	if err != nil || len(all) == 0 {
		return // who serves it says so
	}
	switch end := all[0].NotAfter; {
	case !end.After(now):
		k.log.Error("the certificate has ended: no node and no operator gets an answer until another one is in its place", "file", path, "ended", end)
	case end.Sub(now) < certificateWarning:
		k.log.Warn("the certificate ends soon: put another one in its place", "file", path, "ends", end)
	}
}
