package servertest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// RedisServer is a redis-server process without persistence: what it holds is
// gone when it stops, as Tocsin expects of Redis.
type RedisServer struct {
	binary string
	dir    string
	socket string
	cmd    *exec.Cmd
	exited chan struct{}
}

// Redis starts a server on a unix socket and returns it.
func Redis(t testing.TB) *RedisServer {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("this test needs a real Redis: apt-get install redis-server (%v)", err)
	}
	// A unix socket's path may have 108 bytes at most, which t.TempDir of a long
	// test name exceeds.
	dir, err := os.MkdirTemp("", "redis") //nolint:usetesting // see above
	if err != nil {
		t.Fatalf("make a directory for Redis: %v", err)
	}
	r := &RedisServer{binary: binary, dir: dir, socket: filepath.Join(dir, "s")}
	t.Cleanup(func() {
		r.Stop(t)
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the directory of Redis: %v", err)
		}
	})
	r.Start(t)
	return r
}

// Addr returns the path of the unix socket. go-redis dials it with the network
// "unix"; an address that begins with "/" is one.
func (r *RedisServer) Addr() string { return r.socket }

// Start starts the server, empty, after a Stop.
func (r *RedisServer) Start(t testing.TB) {
	t.Helper()
	r.cmd = exec.Command(r.binary,
		"--port", "0", "--unixsocket", r.socket, "--dir", r.dir,
		"--save", "", "--appendonly", "no", "--loglevel", "warning")
	var out strings.Builder
	r.cmd.Stdout, r.cmd.Stderr = &out, &out
	if err := r.cmd.Start(); err != nil {
		t.Fatalf("start redis-server: %v", err)
	}
	cmd, exited := r.cmd, make(chan struct{})
	r.exited = exited
	go func() {
		_ = cmd.Wait() // its exit is what matters, and out tells the reason
		close(exited)
	}()
	if err := r.awaitPong(); err != nil {
		r.Stop(t)
		t.Fatalf("redis-server does not answer: %v\n%s", err, out.String())
	}
}

// awaitPong asks the server until it answers, has exited, or startLimit is over.
func (r *RedisServer) awaitPong() error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		answer, err := r.command("PING")
		if err == nil && answer == "+PONG" {
			return nil
		}
		select {
		case <-r.exited:
			return errors.New("it exited at once")
		case <-ctx.Done():
			return fmt.Errorf("last answer %q: %w", answer, err)
		case <-poll.C:
		}
	}
}

// Stop kills the server. It returns when the process is gone.
func (r *RedisServer) Stop(t testing.TB) {
	t.Helper()
	r.signal(t, syscall.SIGKILL)
	if r.exited != nil {
		<-r.exited
	}
	r.cmd = nil
}

// Pause freezes the server (SIGSTOP): connections stay open and nothing answers.
func (r *RedisServer) Pause(t testing.TB) { t.Helper(); r.signal(t, syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (r *RedisServer) Resume(t testing.TB) { t.Helper(); r.signal(t, syscall.SIGCONT) }

func (r *RedisServer) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if r.cmd == nil {
		return
	}
	if err := r.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("send %v to redis-server: %v", sig, err)
	}
}

// FlushAll removes every key.
func (r *RedisServer) FlushAll(t testing.TB) {
	t.Helper()
	if answer, err := r.command("FLUSHALL"); err != nil || answer != "+OK" {
		t.Fatalf("FLUSHALL answered %q, %v", answer, err)
	}
}

// command sends one inline command and returns the first line of the answer.
func (r *RedisServer) command(line string) (string, error) {
	conn, err := net.DialTimeout("unix", r.socket, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", line); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimRight(answer, "\r\n"), err
}
