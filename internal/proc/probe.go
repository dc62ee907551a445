package proc

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// probeTimeout bounds the question of a probe: /readyz itself takes up to
	// 800 ms, and container platforms give a probe some seconds.
	probeTimeout = 2 * time.Second
	// maxProbeBody bounds what a probe reads of an answer, in bytes: a hundred
	// failing checks of 256 bytes.
	maxProbeBody = 32 << 10
)

// Probe asks a process of Tocsin on this machine whether it is ready. addr is the
// address that it listens on for health, as it was configured: where that means
// all addresses of the machine, loopback is asked. The error says which checks
// fail, or that nobody answers.
func Probe(ctx context.Context, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port == "0" {
		return Usage(fmt.Errorf("probe: %q is not an address that can be asked", addr))
	}
	return ProbeURL(ctx, "http://"+net.JoinHostPort(local(host), port)+"/readyz")
}

// ProbeURL returns nil when a GET of url is answered with 200. The error holds
// what the answer says, in one line.
func ProbeURL(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Usage(fmt.Errorf("probe: %w", err))
	}
	client := http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}} // one question, and no proxy
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeBody))
	if err != nil {
		return fmt.Errorf("probe %s: answered %d: %w", url, resp.StatusCode, err)
	}
	return fmt.Errorf("probe %s: %s", url, reasons(resp.StatusCode, body))
}

// reasons puts the answer of a process that is not ready into one line.
func reasons(status int, body []byte) string {
	var answer struct {
		Failing map[string]string `json:"failing"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Failing) == 0 {
		return fmt.Sprintf("answered %d", status)
	}
	texts := make([]string, 0, len(answer.Failing))
	for _, name := range slices.Sorted(maps.Keys(answer.Failing)) {
		texts = append(texts, name+": "+strings.Join(strings.Fields(answer.Failing[name]), " "))
	}
	return "not ready: " + strings.Join(texts, "; ")
}

// local returns a host that reaches a listener of host on this machine.
func local(host string) string {
	ip, err := netip.ParseAddr(host)
	switch {
	case host == "" || err == nil && ip == netip.IPv4Unspecified():
		return "127.0.0.1"
	case err == nil && ip == netip.IPv6Unspecified():
		return "::1"
	default:
		return host
	}
}
