package etcd_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func client(t *testing.T, c *cluster) *clientv3.Client {
	t.Helper()
	cl, err := clientv3.New(clientv3.Config{Endpoints: []string{c.endpoint(0)}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}

// historyOf returns a key's value at a revision, "" if that is compacted away.
func historyOf(t *testing.T, c *cluster, key string, revision int64) string {
	t.Helper()
	r, err := client(t, c).Get(t.Context(), key, clientv3.WithRev(revision))
	if err != nil || len(r.Kvs) == 0 {
		return ""
	}
	return string(r.Kvs[0].Value)
}

func remove(t *testing.T, c *cluster, key string) {
	t.Helper()
	if _, err := client(t, c).Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

// filesWith returns the files below dir that contain text.
func filesWith(t *testing.T, dir, text string) (found []string) {
	t.Helper()
	seen := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen++
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(text)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil || seen == 0 {
		t.Fatal(seen, err)
	}
	return found
}
