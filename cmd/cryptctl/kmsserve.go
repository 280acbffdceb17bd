package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/server"
	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/kms/store/bolt"
	"github.com/cryptctl/cryptctl/pki"
)

func kmsServeCommand() *cobra.Command {
	var path, lost string
	var plaintext, hiding bool
	cmd := &cobra.Command{
		Use:   "serve [DIRECTORY]",
		Short: "Answer nodes, until a signal ends it",
		Long: `Runs the key server of a directory that "cryptctl kms init" made (default ` + kmsDir + `), or of
the configuration that --config names. Nodes speak Talos' protocol with it, over
TLS 1.3. A first signal has calls under way answered and then ends it, a second one
ends it at once; neither loses anything that was acknowledged.

An etcd or a Vault that is not there does not keep it from starting: nodes are told
to try later, and /readyz and the log say what is missing, until it is there. A
keyset file that is not that of the store keeps it from starting (with etcd: from
sealing); docs/kms.md, "The keyset is lost", says what to do.`,
		Args: maybe("DIRECTORY"),
	}
	named := dirFlag(cmd)
	cmd.Flags().StringVar(&path, "config", "", "configuration `FILE`; default "+kmsConfigName+" in the directory")
	cmd.Flags().StringVar(&lost, "lost-kek", "", "go on without this `VERSION` of the key-encryption key, of which no copy is left: the keys that it wraps, and what nodes sealed with them, are lost")
	cmd.Flags().BoolVar(&plaintext, "plaintext-exposes-keys", false, "serve nodes without TLS: whoever is on the way reads their disk keys")
	cmd.Flags().BoolVar(&hiding, "oracle-hiding", false, "answer unseals that are refused with random bytes, as the reference server does: a node cannot tell a freeze from a changed key, and may give up its slot; limits are still told, and show that a node is known")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if path != "" && (len(given) > 0 || cmd.Flags().Changed("dir")) {
			return usageError("a directory and --config exclude each other; see %s --help", cmd.CommandPath())
		}
		dir, err := named(given)
		if err != nil {
			return err
		}
		if path == "" {
			path = filepath.Join(dir, kmsConfigName)
		}
		config, err := readKMSConfig(path)
		if err != nil {
			return err
		}
		k := &kmsServer{config: config, lostKEK: lost}
		defer k.close()
		k.startLog(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
		if err := k.open(cmd.Context()); err != nil {
			return err
		}
		return k.serve(cmd.Context(), func(o *server.Options) {
			o.OracleHiding = hiding
			if plaintext {
				o.Plaintext, o.TLS = true, nil
			}
		})
	}
	return cmd
}

// kmsServer is a key server and what has to be closed after it, the last first.
type kmsServer struct {
	config  *kmsConfig
	lostKEK string // what --lost-kek says
	log     *slog.Logger
	closes  []func()

	audit   *audit.Log
	store   store.Store
	backup  interface{ Backup(io.Writer) error } // nil for a store with backups of its own
	kek     wrapper
	kekName string
	keeper  *keeper.Keeper
}

func (k *kmsServer) close() {
	for _, c := range slices.Backward(k.closes) {
		c()
	}
}

func (k *kmsServer) closer(c io.Closer) {
	k.closes = append(k.closes, func() {
		if err := c.Close(); err != nil {
			k.log.Error("closing failed", "error", err)
		}
	})
}

// open opens what a keeper needs, and makes it.
func (k *kmsServer) open(ctx context.Context) (err error) {
	if k.audit, err = audit.Open(k.config.Audit, audit.Options{}); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	k.closer(k.audit)
	if err := k.openStore(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	var free func()
	if k.kek, k.kekName, free, err = k.config.KEK.open(ctx); err != nil {
		return fmt.Errorf("key-encryption key: %w", err)
	}
	k.closes = append(k.closes, free)
	reference, err := k.reference(ctx)
	if err != nil {
		return err
	}
	k.keeper, err = keeper.New(ctx, keeper.Options{Store: k.store, KEK: k.kek, Audit: k.audit, Rules: k.config.rules(), Import: reference, Log: k.log})
	if err != nil {
		reference.Wipe()
		return err
	}
	k.closes = append(k.closes, k.keeper.Close)
	return nil
}

// openStore opens the file, or begins to connect with etcd.
func (k *kmsServer) openStore() error {
	if e := k.config.Store.Etcd; e != nil {
		s, err := e.open(k.log)
		if err != nil {
			return err
		}
		k.store = s
		k.closer(s)
		return nil
	}
	s, err := bolt.Open(k.config.Store.File)
	if err != nil {
		return err
	}
	k.store, k.backup = s, s
	k.closer(s)
	return nil
}

// reference is the key of a reference server whose blobs are imported, nil for
// none.
func (k *kmsServer) reference(ctx context.Context) (*blob.Reference, error) {
	if k.config.ImportReferenceKey == "" {
		return nil, nil
	}
	key, err := readKey(ctx, k.config.ImportReferenceKey)
	if err != nil {
		return nil, fmt.Errorf("import_reference_key: %w", err)
	}
	r, err := blob.NewReference(key)
	if err != nil {
		key.Wipe()
		return nil, fmt.Errorf("import_reference_key: %s: %w", k.config.ImportReferenceKey, err)
	}
	return r, nil
}

// tls follows the files of the configuration.
func (k *kmsServer) tls(auth tls.ClientAuthType) (*tls.Config, error) {
	r, err := pki.NewReloader(pki.Files{
		Cert: k.config.TLS.Certificate, Key: k.config.TLS.Key, Authorities: k.config.TLS.Authorities, ClientAuth: auth,
		Reloaded: func(err error) {
			reloaded(k.log, "server")(err)
			k.warn(time.Now())
		},
	})
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return r.Server(), nil
}

// reloaded puts in the log what became of changed certificates.
func reloaded(log *slog.Logger, of string) func(error) {
	return func(err error) {
		if err != nil {
			log.Error("the former certificates stay in use", "of", of, "error", err)
			return
		}
		log.Info("certificates were read again", "of", of)
	}
}

func (k *kmsServer) options() (server.Options, error) {
	o := server.Options{
		Keeper: k.keeper, Audit: k.audit, Log: k.log,
		AdminOnNodes: k.config.Operators.OnNodesListener,
		Clients:      server.Clients{Required: k.config.Nodes.Certificates == "required", Nodes: k.config.certificatesFor},
		Parts:        server.Parts{AuditDir: k.config.Audit, Store: k.backup, KEK: k.kek, KEKName: k.kekName},
	}
	var err error
	if o.TLS, err = k.tls(tls.VerifyClientCertIfGiven); err == nil && k.config.Operators.Listen != "" {
		o.AdminTLS, err = k.tls(tls.RequireAndVerifyClientCert)
	}
	return o, err
}

// serve answers until the context ends or a listener fails.
func (k *kmsServer) serve(ctx context.Context, change func(*server.Options)) error {
	if err := k.checkKEK(ctx); err != nil {
		return err
	}
	o, err := k.options()
	if err != nil {
		return err
	}
	change(&o)
	k.warn(time.Now())
	s, err := server.New(o)
	if err != nil {
		return err
	}
	h := &http.Server{Handler: s.HTTP(), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	fronts := []front{
		{"nodes", k.config.Nodes.Listen, s.ServeNodes},
		{"operators", k.config.Operators.Listen, s.ServeOperators},
		{"metrics", k.config.Metrics.Listen, h.Serve},
	}
	stopped, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	err = k.listen(fronts, fail)
	if err == nil {
		if o.Plaintext {
			k.log.Warn("nodes are served in plaintext: whoever is on the way reads their keys")
		}
		<-stopped.Done()
	}
	k.log.Info("shutting down")
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.config.Drain)
	defer cancel()
	s.Drain(end)
	h.Close()
	if err == nil && ctx.Err() == nil {
		err = context.Cause(stopped)
	}
	return err
}

// front is a listener and who serves it.
type front struct {
	name, address string
	serve         func(net.Listener) error
}

// listen starts all fronts that have an address.
func (k *kmsServer) listen(fronts []front, fail context.CancelCauseFunc) error {
	for _, f := range fronts {
		if f.address == "" {
			continue
		}
		l, err := net.Listen("tcp", f.address)
		if err != nil {
			return fmt.Errorf("%s.listen: %w", f.name, err)
		}
		k.log.Info("listening", "for", f.name, "address", l.Addr())
		go func() {
			if err := f.serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
				fail(fmt.Errorf("%s: %w", f.name, err))
			}
		}()
	}
	return nil
}
