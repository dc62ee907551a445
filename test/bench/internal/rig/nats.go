package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// NATS is a nats-server.
type NATS struct {
	process  *process
	address  string
	profiler string // host:port of its profiles; empty without
}

// URL is the address for clients.
func (n *NATS) URL() string { return "nats://" + n.address }

// BuildNATS builds the nats-server of the version that the modules name, and
// returns that version.
func BuildNATS(ctx context.Context, binary string) (version string, err error) {
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/nats-io/nats-server/v2")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build nats-server: %w\n%s", err, out)
	}
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask nats-server for its version: %w", err)
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "nats-server: "), nil
}

// startNATS starts a nats-server as deploy/ configures one: on disk, with
// nothing switched off that costs time.
func startNATS(ctx context.Context, o Options, dir string) (*NATS, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	n := &NATS{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	config := fmt.Sprintf("listen: %q\njetstream { store_dir: %q", n.address, filepath.Join(dir, "store"))
	if o.SyncAlways {
		config += ", sync_interval: always"
	}
	config += " }\n"
	if o.Profiles != "" {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		n.profiler = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		config += fmt.Sprintf("prof_port: %d\n", port)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the directory of NATS: %w", err)
	}
	file := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration of NATS: %w", err)
	}
	if n.process, err = start(dir, "nats", nil, o.NATSBinary, "-c", file); err != nil {
		return nil, err
	}
	// What it needs after it listens, its clients wait for by themselves.
	err = await(ctx, n.process, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", n.address)
		if err == nil {
			conn.Close()
		}
		return err
	})
	if err != nil {
		n.process.kill()
		return nil, err
	}
	return n, nil
}

// profile writes a processor profile of the next d into a file.
func (n *NATS) profile(ctx context.Context, file string, d time.Duration) error {
	if n.profiler == "" {
		return errors.New("profile NATS: it was started without")
	}
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", n.profiler, max(int(d.Seconds()), 1))
	return download(ctx, http.MethodGet, url, file)
}

// client fetches profiles and figures from processes of this rig. It asks for
// no compression, which costs those who are measured more than it spares.
var client = &http.Client{Timeout: patience, Transport: &http.Transport{DisableCompression: true}}

// fetch returns the body of an answer of 200. The caller closes it.
func fetch(ctx context.Context, method, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", url, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("ask %s: it answered %s", url, resp.Status)
	}
	return resp.Body, nil
}

// download writes the body of an answer into a file.
func download(ctx context.Context, method, url, file string) error {
	body, err := fetch(ctx, method, url)
	if err != nil {
		return err
	}
	defer body.Close()
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write a profile: %w", err)
	}
	defer f.Close()
	if _, err := io.Copy(f, body); err != nil {
		return fmt.Errorf("write the profile %s: %w", file, err)
	}
	return nil
}
