package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func pkiCommand() *cobra.Command {
	return group("pki", "Make and show certificates for key servers, operators and nodes", pkiCACommand(), pkiCertCommand(), pkiShowCommand())
}

// pairFiles are the two files of a certificate and its key: out is what they are
// called without .crt and .key, or a folder, in which they are called name.
func pairFiles(out, name string) (cert, key string) {
	if info, err := os.Stat(out); strings.HasSuffix(out, "/") || err == nil && info.IsDir() {
		out = filepath.Join(out, name)
	}
	return out + ".crt", out + ".key"
}
