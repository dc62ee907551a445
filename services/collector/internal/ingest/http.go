package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

const (
	// maxRegistration bounds the body of a registration: 1000 ids of 64 bytes.
	maxRegistration = 64 << 10
	// maxWebhook bounds the body of a webhook. RunPod takes inputs and outputs of
	// up to 20 MB; a MiB more holds what stands beside them.
	maxWebhook = 21 << 20
	// maxReading bounds the webhooks that are read at once. Each keeps at most
	// 320 KiB, whatever its length: 80 MiB if all did, where they usually keep
	// some hundred bytes. It is large, because one that arrives slowly must not
	// hold up the others.
	maxReading = 256
	// maxWebhookKept is a long error, which is cut at 256 KiB, and the rest.
	maxWebhookKept = 320 << 10
	// turnTime is how long a webhook waits to be read when that many are.
	turnTime = time.Second
	// settleTime is how long the answer to a webhook waits for the event log,
	// which takes some milliseconds. RunPod is not kept waiting for one that is
	// away: it would give a webhook up after three answers that are no 200.
	settleTime = 500 * time.Millisecond
)

// The bounds of a connection. A webhook of 20 MB in 30 s needs 6 Mbit/s.
const (
	headerTime = 5 * time.Second
	readTime   = 30 * time.Second
	writeTime  = 60 * time.Second
	idleTime   = 2 * time.Minute
	stopTime   = 2 * time.Second
	maxHeaders = 32 << 10
)

// Routes adds the ingest API to mux: POST /v1/jobs and GET /v1/endpoints, which
// ask for the token, and POST /webhook/{token}, which is its own.
func (s *Service) Routes(mux *proc.Mux) {
	mux.Handle("POST /v1/jobs", proc.RequireToken(s.opts.Token, proc.Answer(s.opts.Log, s.postJobs)))
	mux.Handle("GET /v1/endpoints", proc.RequireToken(s.opts.Token, proc.Answer(s.opts.Log, s.listEndpoints)))
	mux.Handle("POST /webhook/{token}", proc.Answer(s.opts.Log, s.postWebhook))
}

func (s *Service) postJobs(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Account    string   `json:"account"`
		EndpointID string   `json:"endpoint_id"`
		JobIDs     []string `json:"job_ids"`
	}
	if err := proc.ReadJSON(w, r, maxRegistration, &body); err != nil {
		return err
	}
	registered, already, err := s.track(r.Context(), body.Account, body.EndpointID, body.JobIDs)
	if err != nil {
		return err
	}
	return answer(w, map[string]int{"registered": registered, "already_tracked": already})
}

func (s *Service) listEndpoints(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, map[string][]Endpoint{"endpoints": s.opts.Directory.List()})
}

// postWebhook answers a valid token with 200 whatever its body holds: sending it
// again would change nothing. What it says is stored first, since no poll brings
// back the end of a job that nobody registered.
func (s *Service) postWebhook(w http.ResponseWriter, r *http.Request) error {
	endpoint, ok := s.opts.Directory.Lookup(r.PathValue("token"))
	if !ok {
		s.webhooks.WithLabelValues("unknown_token").Inc()
		return fault.New(fault.NotFound, "no endpoint has this webhook")
	}
	result := s.takeWebhook(r, endpoint)
	s.webhooks.WithLabelValues(result).Inc()
	s.opts.Log.DebugContext(r.Context(), "webhook taken", "endpoint_id", endpoint, "result", result)
	if result == "ok" {
		patient, cancel := context.WithTimeout(r.Context(), settleTime)
		defer cancel()
		s.opts.Settle(patient, endpoint)
	}
	return answer(w, map[string]bool{"ok": true})
}

// takeWebhook reads a webhook and returns what came of it.
func (s *Service) takeWebhook(r *http.Request, endpoint string) string {
	patient, cancel := context.WithTimeout(r.Context(), turnTime)
	defer cancel()
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-patient.Done():
		return "busy"
	}
	j, err := runpod.ReadJob(r.Body, maxWebhook, maxWebhookKept, s.opts.APIKey)
	switch runpod.KindOf(err) {
	case "":
	case runpod.TooLarge:
		return "too_large"
	case runpod.Malformed:
		return "malformed"
	default:
		return "broken"
	}
	if !validID(j.ID) || s.opts.Jobs.Webhook(endpoint, j) != nil {
		return "no_job"
	}
	return "ok"
}

func answer(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // a caller who went away
	return nil
}

// Serve serves h on ln until ctx ends and then lets requests end for two
// seconds. Unlike the server of the other ports it takes bodies as long as a
// webhook's; each route has its own bound.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           http.MaxBytesHandler(h, maxWebhook+1),
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeaders,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close() // those who did not end in time are cut off
		}
	})
	err := srv.Serve(ln)
	if stop() { // it failed before ctx ended
		return fmt.Errorf("serve ingest on %s: %w", ln.Addr(), err)
	}
	<-stopped
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve ingest on %s: %w", ln.Addr(), err)
	}
	return nil
}
