package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/cryptctl/cryptctl/internal/durable"
	"github.com/cryptctl/cryptctl/kms/wire"
)

func kmsBackupCommand() *cobra.Command {
	k := &kmsTarget{}
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the store of a key server that is running",
		Long: `Has the key server send the state of one moment, checks that it came whole, and
writes it to FILE, which must not be there. cryptctl kms backup verify checks it again
later, with the keyset; cryptctl kms restore reads it.

The keys in it are wrapped. What unwraps them is not in it: back up the keyset file
(kek.json) and what opens it as well, and keep those somewhere else. A store in etcd
is backed up by etcdctl snapshot save. Needs the role admin.`,
		Args: args("FILE"),
	}
	k.flags(cmd, false)
	cmd.AddCommand(kmsBackupVerifyCommand())
	cmd.RunE = kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, given []string) error {
		size, sum, err := receiveBackup(cmd, a, given[0])
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes, sha256 %x\n", given[0], size, sum)
		return err
	})
	return cmd
}

// receiveBackup writes a backup to a file of which all or nothing is there
// afterwards, and which it never replaces.
func receiveBackup(cmd *cobra.Command, a *kmsAdmin, path string) (size int64, sum []byte, err error) {
	if info, err := os.Stat(path); strings.HasSuffix(path, "/") || err == nil && info.IsDir() {
		return 0, nil, usageError("%s names a directory; name a file in it that is not there yet", path)
	}
	if _, err := os.Lstat(path); err == nil {
		return 0, nil, fmt.Errorf("%s is there, and nothing is replaced; choose another name", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".cryptctl-*") // mode 0600
	if err != nil {
		if p, ok := errors.AsType[*os.PathError](err); ok {
			err = p.Err // the temporary name says nothing
		}
		return 0, nil, fmt.Errorf("%s cannot be written: %s: %w", path, filepath.Dir(path), err)
	}
	defer os.Remove(f.Name())
	s, err := a.Backup(cmd.Context(), &wire.BackupRequest{})
	if err == nil {
		size, sum, err = copyBackup(f, s)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, nil, err
	}
	if err := os.Link(f.Name(), path); errors.Is(err, os.ErrExist) {
		return 0, nil, fmt.Errorf("%s is there, and nothing is replaced; choose another name", path)
	} else if err != nil {
		return 0, nil, err
	}
	return size, sum, durable.SyncDir(filepath.Dir(path))
}

// copyBackup writes what comes, up to its checksum, which must be right.
func copyBackup(to io.Writer, s grpc.ServerStreamingClient[wire.BackupChunk]) (size int64, sum []byte, err error) {
	here := sha256.New()
	to = io.MultiWriter(to, here)
	for {
		c, err := s.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return 0, nil, errors.New("the backup was cut off: its checksum did not come; nothing was written, try again")
		case err != nil:
			return 0, nil, err
		case len(c.GetSha256()) > 0:
			if sum = here.Sum(nil); !bytes.Equal(sum, c.GetSha256()) {
				return 0, nil, errors.New("the backup was changed on its way: its checksum does not fit; nothing was written, try again")
			}
			return size, sum, nil
		}
		if _, err := to.Write(c.GetData()); err != nil {
			return 0, nil, err
		}
		size += int64(len(c.GetData()))
	}
}
