// Package ingest takes what RunPod does not list: the ids of jobs, from those who
// submit them, and the ends of jobs, from RunPod's completion webhooks. Of a
// webhook it keeps neither input nor output, however large; a valid one is
// always answered with 200, because RunPod tries only twice more, and, unless the
// event log is away, only when what it says is stored.
package ingest

import (
	"context"
	"log/slog"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/secret"
	ingestv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/ingest/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/job"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

// maxJobs bounds the job ids of one request.
const maxJobs = 1000

// Jobs follows jobs.
type Jobs interface {
	// Register follows jobs and returns how many were not followed before and how
	// many were.
	Register(ctx context.Context, endpoint string, ids []string) (registered, already int, err error)
	// Webhook takes what a webhook says of a job, without blocking.
	Webhook(endpoint string, j runpod.Job) error
}

// Options are what a [Service] needs; all fields but Token are required.
type Options struct {
	// Account is its name in the configuration.
	Account string
	// Jobs follows what is registered.
	Jobs Jobs
	// Settle waits until what was told of an endpoint's jobs is stored, or until
	// ctx ends.
	Settle func(ctx context.Context, endpoint string)
	// Directory knows the endpoints.
	Directory *Directory
	// Token is what callers must send, except RunPod, whose path is its token.
	Token secret.String
	// APIKey is RunPod's, which must not pass even where a job's error tells it.
	APIKey secret.String
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
	// Log receives what went wrong on our side, and at the level debug a line for each
	// webhook.
	Log *slog.Logger
}

// Service is the ingest API, over gRPC and HTTP.
type Service struct {
	ingestv1.UnimplementedIngestServiceServer
	opts     Options
	webhooks *prometheus.CounterVec
	reading  chan struct{} // one token for each webhook body being read
}

// NewService returns the service.
func NewService(opts Options) *Service {
	s := &Service{
		opts: opts,
		webhooks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_collector_webhooks_total",
			Help: "Webhooks by what came of them: ok, unknown_token, malformed, too_large, broken, busy, no_job.",
		}, []string{"result"}),
		reading: make(chan struct{}, maxReading),
	}
	opts.Registerer.MustRegister(s.webhooks)
	return s
}

// TrackJob registers jobs to be followed until a final state.
func (s *Service) TrackJob(ctx context.Context, r *ingestv1.TrackJobRequest) (*ingestv1.TrackJobResponse, error) {
	registered, already, err := s.track(ctx, r.GetAccount(), r.GetEndpointId(), r.GetJobIds())
	if err != nil {
		return nil, err
	}
	return &ingestv1.TrackJobResponse{Registered: uint32(registered), AlreadyTracked: uint32(already)}, nil
}

func (s *Service) track(ctx context.Context, account, endpoint string, ids []string) (registered, already int, err error) {
	switch {
	case account != "" && account != s.opts.Account:
		return 0, 0, fault.Newf(fault.NotFound, "account %.64q is not watched here", account)
	case endpoint == "":
		return 0, 0, fault.New(fault.Invalid, "endpoint_id is missing")
	case len(ids) == 0:
		return 0, 0, fault.New(fault.Invalid, "job_ids is empty")
	case len(ids) > maxJobs:
		return 0, 0, fault.Newf(fault.Invalid, "job_ids has %d ids, %d are allowed", len(ids), maxJobs)
	}
	for i, id := range ids {
		if !validID(id) {
			return 0, 0, fault.Newf(fault.Invalid, "job_ids[%d] is not 1 to %d bytes of printable text", i, job.MaxID)
		}
	}
	return s.opts.Jobs.Register(ctx, endpoint, ids)
}

func validID(id string) bool {
	if id == "" || len(id) > job.MaxID || id == "." || id == ".." || !utf8.ValidString(id) {
		return false
	}
	for _, r := range id {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) {
			return false
		}
	}
	return true
}
