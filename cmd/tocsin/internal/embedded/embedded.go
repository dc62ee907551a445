// Package embedded runs the servers that Tocsin stands on inside its own
// process: NATS with JetStream on disk, and a Redis in memory.
//
// What is in NATS survives the process; what is in Redis does not, and need
// not: the alerter rebuilds it from its snapshots and the log. One data
// directory serves one process at a time, which a lock on the directory keeps.
package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/nats-io/nats-server/v2/server"
)

const (
	// startTimeout bounds the start of NATS. It reads its files back first: a
	// week of history of 100 targets (about 2 GiB) takes a few seconds, so a
	// minute leaves room for a slow disk.
	startTimeout = time.Minute
	// stopTimeout bounds the stop. NATS flushes its files, which is a matter of
	// milliseconds; Ctrl-C must end the whole process within 3 s.
	stopTimeout = 2 * time.Second
	// maxHistoryBytes bounds the event history. At 250 bytes an event 10 GiB are
	// 40 million events, a week of 60 endpoints and 40 pods three times over.
	maxHistoryBytes = 10 << 30
	// storeReserve is what streams other than the event history may take.
	storeReserve = 2 << 30
)

// Servers are the running servers. Close them with Close.
type Servers struct {
	nats  *server.Server
	redis *miniredis.Miniredis
	lock  *os.File

	// RedisAddress is the loopback address of Redis.
	RedisAddress string
	// RedisPassword opens it: other users of the machine share its loopback.
	RedisPassword string
	// HistoryBytes is what the event history may take on disk: the lesser of 10
	// GiB and half of what was free when the directory was made.
	HistoryBytes int64
}

// ErrInUse says that another process holds the data directory.
var ErrInUse = errors.New("the data directory is in use by another process: stop that one, or choose another directory with --data")

// Start runs the servers on the data directory dir, which it makes when it is
// missing. It returns when both serve. The error wraps ErrInUse when another
// process holds the directory: two NATS servers on one directory lose
// acknowledged messages.
func Start(ctx context.Context, dir string, log *slog.Logger) (_ *Servers, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	s := &Servers{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.lock, err = lock(filepath.Join(dir, "lock")); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if s.HistoryBytes, err = historyBytes(dir); err != nil {
		return nil, fmt.Errorf("size the event history: %w", err)
	}
	if err = s.startNATS(ctx, filepath.Join(dir, "nats"), log); err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	if err = s.startRedis(); err != nil {
		return nil, fmt.Errorf("start Redis: %w", err)
	}
	return s, nil
}

// InProcessConn connects to NATS through memory. It makes Servers usable as
// the bus's connection.
func (s *Servers) InProcessConn() (net.Conn, error) { return s.nats.InProcessConn() }

// Close stops the servers and gives the directory back. Clients must be closed
// before. It is safe on Servers that only started in part.
func (s *Servers) Close() {
	if s.redis != nil {
		s.redis.Close()
	}
	if s.nats != nil {
		s.nats.Shutdown()
		stopped := make(chan struct{})
		go func() {
			s.nats.WaitForShutdown()
			close(stopped)
		}()
		select {
		case <-stopped:
		case <-time.After(stopTimeout):
		}
	}
	if s.lock != nil {
		s.lock.Close()
	}
}

func (s *Servers) startNATS(ctx context.Context, dir string, log *slog.Logger) error {
	ns, err := server.NewServer(&server.Options{
		ServerName: "tocsin",
		JetStream:  true,
		StoreDir:   dir,
		// The streams bound themselves; this only keeps NATS from refusing them
		// on a small disk, where its own default is a part of what is free now.
		JetStreamMaxStore: s.HistoryBytes + storeReserve,
		DontListen:        true,
		NoSigs:            true,
	})
	if err != nil {
		return err
	}
	ns.SetLoggerV2(natsLog{log.With("component", "nats")}, false, false, false)
	s.nats = ns
	go ns.Start()
	deadline := time.Now().Add(startTimeout)
	for !ns.ReadyForConnections(100 * time.Millisecond) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after %v; its log above says why", startTimeout)
		}
	}
	// A server whose store failed is "ready" all the same; only its health says it.
	if health := ns.Healthz(nil); health.Error != "" {
		return fmt.Errorf("its store is not healthy: %s", health.Error)
	}
	return nil
}

func (s *Servers) startRedis() error {
	r := miniredis.NewMiniRedis()
	s.RedisPassword = rand.Text()
	r.RequireAuth(s.RedisPassword)
	if err := r.StartAddr("127.0.0.1:0"); err != nil {
		return err
	}
	s.redis, s.RedisAddress = r, r.Addr()
	return nil
}

// lock takes the file for this process until the file is closed or the process ends.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, err
	}
	return f, nil
}

// historyBytes decides the size of the event history once, when the directory
// is new, and reads the decision back afterwards: a stream's size is not
// changed behind its owner's back because the disk is fuller today.
func historyBytes(dir string) (int64, error) {
	path := filepath.Join(dir, "history-bytes")
	text, err := os.ReadFile(path)
	if err == nil && len(text) > 0 { // an empty one is of a process that was killed before it could write
		var n int64
		if _, err := fmt.Sscan(string(text), &n); err != nil || n <= 0 {
			return 0, fmt.Errorf("%s does not hold a number of bytes: remove it to have it decided anew", path)
		}
		return n, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	free := int64(disk.Bavail) * disk.Bsize //nolint:unconvert // the types differ between systems
	n := min(maxHistoryBytes, free/2)
	return n, os.WriteFile(path, fmt.Appendln(nil, n), 0o600)
}

// natsLog passes on what NATS warns of; its notices are of no use to a user.
type natsLog struct{ log *slog.Logger }

func (l natsLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l natsLog) Warnf(format string, v ...any)   { l.log.Warn(fmt.Sprintf(format, v...)) }
func (l natsLog) Fatalf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
func (l natsLog) Errorf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
func (l natsLog) Debugf(string, ...any)           {}
func (l natsLog) Tracef(string, ...any)           {}
