package proc_test

import (
	"context"
	"errors"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/proc"
)

func TestProbeTellsWhetherAProcessIsReady(t *testing.T) {
	var h proc.Health
	mux := proc.NewMux()
	h.Routes(mux)
	server := httptest.NewServer(mux)
	defer server.Close()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"127.0.0.1:" + port, "localhost:" + port, "0.0.0.0:" + port, ":" + port} {
		if err := proc.Probe(t.Context(), addr); err != nil {
			t.Errorf("ready at %s: %v", addr, err)
		}
	}

	h.Add("redis", func(context.Context) error { return errors.New("refused\nby ACL") })
	h.Add("nats", func(context.Context) error { return errors.New("away") })
	err = proc.Probe(t.Context(), "0.0.0.0:"+port)
	if err == nil || !strings.HasSuffix(err.Error(), "/readyz: not ready: nats: away; redis: refused by ACL") || proc.IsUsage(err) {
		t.Errorf("not ready: %v", err)
	}
	if err := proc.ProbeURL(t.Context(), server.URL+"/nothing"); err == nil || !strings.HasSuffix(err.Error(), "answered 404") {
		t.Errorf("a path that is not there: %v", err)
	}

	server.Close()
	if err := proc.Probe(t.Context(), "127.0.0.1:"+port); err == nil || proc.IsUsage(err) {
		t.Errorf("nobody listens: %v", err)
	}
	for _, addr := range []string{"127.0.0.1:0", "nowhere"} {
		if err := proc.Probe(t.Context(), addr); !proc.IsUsage(err) {
			t.Errorf("%s cannot be asked: %v", addr, err)
		}
	}
	if err := proc.ProbeURL(t.Context(), "http://bad host/"); !proc.IsUsage(err) {
		t.Errorf("what is no URL: %v", err)
	}
}
