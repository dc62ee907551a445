package servertest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// Backup is a copy of a NATS server's directory.
type Backup struct {
	server *NATSServer
	dir    string
}

// Backup copies the server's directory, for which it stops the server for a
// moment.
func (s *NATSServer) Backup(t testing.TB) *Backup {
	t.Helper()
	b := &Backup{server: s, dir: filepath.Join(t.TempDir(), "backup")}
	s.Stop()
	if err := os.CopyFS(b.dir, os.DirFS(s.opts.StoreDir)); err != nil {
		t.Fatalf("copy the NATS server's directory: %v", err)
	}
	s.Start(t)
	return b
}

// Restore makes the directory of the server, which must be stopped, what it was
// when it was copied: all of it, or only these streams. A bucket's stream has
// KV_ before its name, an object store's OBJ_.
func (b *Backup) Restore(t testing.TB, streams ...string) {
	t.Helper()
	paths := []string{"."}
	if len(streams) > 0 {
		paths = nil
	}
	for _, name := range streams {
		paths = append(paths, filepath.Join(server.JetStreamStoreDir, server.DEFAULT_GLOBAL_ACCOUNT, "streams", name))
	}
	for _, path := range paths {
		to := filepath.Join(b.server.opts.StoreDir, path)
		if err := errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(filepath.Join(b.dir, path)))); err != nil {
			t.Fatalf("put the copy of the NATS server's directory back: %v", err)
		}
	}
}
