package rig

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Redis is a redis-server without persistence, as Tocsin uses one.
type Redis struct {
	process *process
	// Address is host:port for clients.
	Address string
}

// RedisVersion returns the version of the redis-server that is installed.
func RedisVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "redis-server", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask redis-server for its version (make redis installs it): %w", err)
	}
	_, rest, _ := strings.Cut(string(out), "v=")
	version, _, _ := strings.Cut(rest, " ")
	return version, nil
}

func startRedis(ctx context.Context, dir string) (*Redis, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	r := &Redis{Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	if r.process, err = start(dir, "redis", nil, "redis-server",
		"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir, "--save", "", "--appendonly", "no"); err != nil {
		return nil, err
	}
	if err := await(ctx, r.process, func(ctx context.Context) error {
		_, err := r.command(ctx, "PING")
		return err
	}); err != nil {
		r.process.kill()
		return nil, err
	}
	return r, nil
}

// FlushAll removes every key.
func (r *Redis) FlushAll(ctx context.Context) error {
	_, err := r.command(ctx, "FLUSHALL")
	return err
}

// UsedMemory returns how many bytes Redis has allocated for its data.
func (r *Redis) UsedMemory(ctx context.Context) (float64, error) {
	info, err := r.command(ctx, "INFO memory")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, "used_memory:"); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("ask Redis for its memory: it does not tell: %q", info)
}

// command sends one command and returns its answer: a line, or a text.
func (r *Redis) command(ctx context.Context, line string) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", r.Address)
	if err != nil {
		return "", fmt.Errorf("connect to Redis: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", fmt.Errorf("ask Redis: %w", err)
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", line); err != nil {
		return "", fmt.Errorf("ask Redis: %w", err)
	}
	answers := bufio.NewReader(conn)
	answer, err := answers.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("ask Redis: %w", err)
	}
	answer = strings.TrimSpace(answer)
	switch {
	case strings.HasPrefix(answer, "-"):
		return "", fmt.Errorf("%s: Redis answered %s", line, answer)
	case !strings.HasPrefix(answer, "$"):
		return answer, nil
	}
	size, err := strconv.Atoi(answer[1:])
	if err != nil {
		return "", fmt.Errorf("ask Redis: its answer begins with %q", answer)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(answers, text); err != nil {
		return "", fmt.Errorf("ask Redis: %w", err)
	}
	return string(text), nil
}
