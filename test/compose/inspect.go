package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	"github.com/tocsin-dev/tocsin/internal/secret"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
)

// askTimeout bounds one question to an API.
const askTimeout = 10 * time.Second

// inspect looks whether the containers are held as compose.yaml means them to be,
// and whether the engine shows a secret.
func (t *trial) inspect(ctx context.Context) error {
	all, text, err := t.containers(ctx)
	if err != nil {
		return err
	}
	secrets, err := t.readSecrets()
	if err != nil {
		return err
	}
	errs := []error{absent("docker inspect", text, secrets)}
	for name, c := range all {
		for _, mistake := range held(c) {
			errs = append(errs, fmt.Errorf("%s %s", name, mistake))
		}
	}
	return errors.Join(errs...)
}

// held returns what a container may or has that it should not.
func held(c container) (mistakes []string) {
	once := c.service() == "nats-volume" // gives the volume to NATS's user, and ends
	user, restart, added := "65532:65532", "unless-stopped", []string(nil)
	if once {
		user, restart, added = "0:0", "no", []string{"CHOWN"}
	}
	h := c.HostConfig
	wrong := func(bad bool, what string) {
		if bad {
			mistakes = append(mistakes, what)
		}
	}
	wrong(c.Config.User != user, fmt.Sprintf("runs as %q, not %s", c.Config.User, user))
	wrong(h.RestartPolicy.Name != restart, fmt.Sprintf("has the restart policy %q, not %s", h.RestartPolicy.Name, restart))
	wrong(h.Privileged || !h.ReadonlyRootfs, "is privileged, or may write to its root")
	wrong(!slices.Equal(h.CapDrop, []string{"ALL"}), "keeps capabilities")
	for i, name := range h.CapAdd {
		h.CapAdd[i] = strings.TrimPrefix(name, "CAP_")
	}
	wrong(len(h.CapAdd)+len(added) > 0 && !slices.Equal(h.CapAdd, added), fmt.Sprintf("has the capabilities %v", h.CapAdd))
	wrong(!slices.Contains(h.SecurityOpt, "no-new-privileges:true"), "may gain privileges")
	wrong(h.Memory <= 0 || h.PidsLimit <= 0, "is not bounded in memory or processes")
	for port, bindings := range h.PortBindings {
		for _, b := range bindings {
			wrong(b.HostIP != "127.0.0.1", fmt.Sprintf("publishes %s on %q", port, b.HostIP))
		}
	}
	return mistakes
}

// readSecrets returns the secrets by the names of their files.
func (t *trial) readSecrets() (map[string]string, error) {
	secrets := map[string]string{}
	for _, pattern := range []string{"*_*", "receivers/*"} {
		paths, err := filepath.Glob(filepath.Join(t.secrets(), pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			secrets[filepath.Base(path)] = strings.TrimSpace(string(text))
		}
	}
	if len(secrets) < len(killed) {
		return nil, fmt.Errorf("only %d secrets were made", len(secrets))
	}
	return secrets, nil
}

// absent returns an error for each secret that a text holds.
func absent(where, text string, secrets map[string]string) error {
	var errs []error
	for name, value := range secrets {
		if strings.Contains(text, value) {
			errs = append(errs, fmt.Errorf("%s shows the secret %s", where, name))
		}
	}
	return errors.Join(errs...)
}

// ask asks each published API with its token and without.
func (t *trial) ask(ctx context.Context) error {
	secrets, err := t.readSecrets()
	if err != nil {
		return err
	}
	for _, api := range []struct{ port, path, token string }{
		{"TOCSIN_INGEST_PORT", "/v1/endpoints", "token_collector"},
		{"TOCSIN_COLLECTOR_HTTP_PORT", "/metrics", "token_collector"},
		{"TOCSIN_ALERTER_HTTP_PORT", "/metrics", "token_alerter"},
		{"TOCSIN_NOTIFIER_HTTP_PORT", "/metrics", "token_notifier"},
	} {
		url := "http://127.0.0.1:" + t.ports[api.port] + api.path
		for token, want := range map[string]int{secrets[api.token]: http.StatusOK, "wrong": http.StatusUnauthorized, "": http.StatusUnauthorized} {
			got, err := status(ctx, url, token)
			if err != nil {
				return err
			}
			if got != want {
				return fmt.Errorf("%s answers %d, want %d (a token: %t)", api.port, got, want, token != "")
			}
		}
	}
	address := "127.0.0.1:" + t.ports["TOCSIN_ALERTER_GRPC_PORT"]
	if err := listAlerts(ctx, address, secrets["token_alerter"]); err != nil {
		return fmt.Errorf("ask the alerter over gRPC: %w", err)
	}
	if err := listAlerts(ctx, address, "wrong"); !errors.Is(err, fault.Unauthenticated) {
		return fmt.Errorf("the alerter answers a wrong token over gRPC with %w", err)
	}
	return nil
}

// client asks the APIs that are published.
var client = &http.Client{Timeout: askTimeout}

func status(ctx context.Context, url, token string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func listAlerts(ctx context.Context, address, token string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := rpc.Dial(address, rpc.DialOptions{Token: secret.String(token)})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing is in flight
	_, err = queryv1.NewQueryServiceClient(conn).ListAlerts(ctx, &queryv1.ListAlertsRequest{PageSize: 10})
	return err
}
