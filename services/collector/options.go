package collector

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/secret"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

// APIKeyVariable is the environment variable that holds RunPod's API key when
// the configuration names none.
const APIKeyVariable = "RUNPOD_API_KEY"

// ErrNoKey means that no API key of RunPod is configured.
var ErrNoKey = errors.New("no RunPod API key: set " + APIKeyVariable + ", runpod.api_key_file or runpod.api_key (make demo needs none)")

// RunPodConfig is the section "runpod" of the configuration: the account that is
// watched.
type RunPodConfig struct {
	// APIKey is RunPod's API key; a read-only one is enough.
	APIKey secret.String `yaml:"api_key"`
	// APIKeyFile is a file that holds the key, in place of APIKey.
	APIKeyFile string `yaml:"api_key_file"`
	// Account is the name of the account in events and alerts.
	Account string `yaml:"account"`
	// RESTURL is the base URL of RunPod's REST API v2.
	RESTURL string `yaml:"rest_url"`
	// ServerlessURL is the base URL of RunPod's serverless runtime API.
	ServerlessURL string `yaml:"serverless_url"`
}

// DefaultRunPodConfig returns RunPod itself, under the account name "default"
// and without a key.
func DefaultRunPodConfig() RunPodConfig {
	return RunPodConfig{
		Account:       "default",
		RESTURL:       runpod.DefaultRESTURL,
		ServerlessURL: runpod.DefaultServerlessURL,
	}
}

// accountName is what an account may be called: it becomes part of subjects,
// labels and URLs.
var accountName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)

// Validate returns every mistake but a missing key, which [RunPodConfig.Key]
// reports.
func (c *RunPodConfig) Validate() error {
	var errs []error
	if !accountName.MatchString(c.Account) {
		errs = append(errs, fmt.Errorf("account: %q is not 1 to 63 letters, digits, - or _", c.Account))
	}
	if c.APIKey != "" && c.APIKeyFile != "" {
		errs = append(errs, errors.New("api_key: set here and by api_key_file: keep one of them"))
	}
	for _, base := range []struct{ name, url string }{{"rest_url", c.RESTURL}, {"serverless_url", c.ServerlessURL}} {
		if err := runpod.CheckURL(base.url); err != nil && base.url != "" { // empty is RunPod itself
			errs = append(errs, fmt.Errorf("%s: %w", base.name, err))
		}
	}
	return errors.Join(errs...)
}

// Key returns the configured key: api_key, else the content of api_key_file,
// else what getenv returns for RUNPOD_API_KEY. It returns [ErrNoKey] when all
// are empty, and an error that names the source of a key that cannot be one.
func (c *RunPodConfig) Key(getenv func(string) string) (secret.String, error) {
	key, source := c.APIKey, "runpod.api_key"
	switch {
	case key != "":
	case c.APIKeyFile != "":
		source = "runpod.api_key_file"
		var err error
		if key, err = secret.FromFile(c.APIKeyFile); err != nil {
			return "", fmt.Errorf("%s: %w", source, err)
		}
	default:
		key, source = secret.String(strings.TrimSpace(getenv(APIKeyVariable))), APIKeyVariable
		if key == "" {
			return "", ErrNoKey
		}
	}
	if err := runpod.CheckKey(key.Reveal()); err != nil {
		return "", fmt.Errorf("%s: %w", source, err)
	}
	return key, nil
}

// unencrypted returns the URLs that send the key over a network for all to read.
func (c *RunPodConfig) unencrypted() []string {
	var plain []string
	for _, raw := range []string{c.RESTURL, c.ServerlessURL} {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "http" || u.Hostname() == "localhost" {
			continue
		}
		if ip, err := netip.ParseAddr(u.Hostname()); err != nil || !ip.IsLoopback() {
			plain = append(plain, raw)
		}
	}
	return plain
}

// Config is the section "collector" of the configuration.
type Config struct {
	// IngestAddress is where job registrations and RunPod's webhooks arrive.
	IngestAddress string `yaml:"ingest_address"`
	// HTTPAddress is where metrics, liveness and readiness are read.
	HTTPAddress string `yaml:"http_address"`
	// GRPCAddress is where the IngestService is served.
	GRPCAddress string `yaml:"grpc_address"`
	// Token is the bearer token that the ports ask for, the webhook path and
	// the health paths apart. Empty asks for none.
	Token secret.String `yaml:"token"`
	// TokenFile is a file that holds the token, in place of Token.
	TokenFile string `yaml:"token_file"`
	// Insecure allows addresses beyond loopback without a token.
	Insecure bool `yaml:"insecure"`
	// WebhookSecret derives the webhook tokens of the endpoints. When empty, one
	// is made at the first start and kept in NATS.
	WebhookSecret secret.String `yaml:"webhook_secret"`
	// WebhookSecretFile is a file that holds the secret, in place of
	// WebhookSecret.
	WebhookSecretFile string `yaml:"webhook_secret_file"`
	// HealthInterval is the time between two polls of an endpoint's /health and
	// between two heartbeats of the account.
	HealthInterval time.Duration `yaml:"health_interval"`
	// PodsInterval is the time between two lists of pods.
	PodsInterval time.Duration `yaml:"pods_interval"`
	// InventoryInterval is the time between two lists of endpoints.
	InventoryInterval time.Duration `yaml:"inventory_interval"`
	// JobFastInterval is the time between two polls of a job in its first
	// minute.
	JobFastInterval time.Duration `yaml:"job_fast_interval"`
	// JobInterval is the time between two polls of a job after that.
	JobInterval time.Duration `yaml:"job_interval"`
	// MaxBackoff bounds the time between two polls of a target that fails.
	MaxBackoff time.Duration `yaml:"max_backoff"`
	// Timeout bounds one call to RunPod, its answer included.
	Timeout time.Duration `yaml:"timeout"`
	// MaxConcurrent bounds the calls to RunPod in flight.
	MaxConcurrent int `yaml:"max_concurrent"`
	// MaxTargets bounds the endpoints and pods that are watched together. The lists
	// that name them may be the longer, the higher it is.
	MaxTargets int `yaml:"max_targets"`
	// MaxTrackedJobs bounds the jobs that are followed at once.
	MaxTrackedJobs int `yaml:"max_tracked_jobs"`
	// MaxStreamBytes bounds the event log when the collector creates it; 0 stands
	// for 10 GiB, or less where the disk has less room.
	MaxStreamBytes int64 `yaml:"max_stream_bytes"`
}

const (
	// defaultMaxConcurrent serves 10,000 endpoints every 10 s while RunPod
	// answers within 60 ms, and 60 endpoints when each answer takes 10 s.
	defaultMaxConcurrent = 64
	// defaultMaxTargets is twice the 10,000 endpoints that a collector is made for. A
	// target costs 4 KiB here with its settings, schedule, series and waiting
	// samples, so all of them 80 MiB.
	defaultMaxTargets = 20_000
	// defaultMaxTrackedJobs costs about 20 MiB at 400 bytes a job.
	defaultMaxTrackedJobs = 50_000
)

// DefaultConfig returns the intervals that the quota of an ordinary account
// bears, loopback addresses and no token.
func DefaultConfig() Config {
	return Config{
		IngestAddress:     "127.0.0.1:8081",
		HTTPAddress:       "127.0.0.1:8083",
		GRPCAddress:       "127.0.0.1:9095",
		HealthInterval:    15 * time.Second,
		PodsInterval:      30 * time.Second,
		InventoryInterval: 60 * time.Second,
		JobFastInterval:   2 * time.Second,
		JobInterval:       15 * time.Second,
		MaxBackoff:        5 * time.Minute,
		Timeout:           10 * time.Second,
		MaxConcurrent:     defaultMaxConcurrent,
		MaxTargets:        defaultMaxTargets,
		MaxTrackedJobs:    defaultMaxTrackedJobs,
	}
}

// lists returns how many times its usual length a list of RunPod's may have: the
// usual one for every 20,000 targets.
func (c *Config) lists() int64 { return int64(max(c.MaxTargets/defaultMaxTargets, 1)) }

// Validate returns every mistake at once, each by its key, but those of secrets'
// files, which [Options.Check] returns.
func (c *Config) Validate() error {
	var errs []error
	token := c.Token
	if c.TokenFile != "" {
		token = "from a file"
	}
	for _, a := range []struct{ name, address string }{
		{"collector.ingest_address", c.IngestAddress},
		{"collector.http_address", c.HTTPAddress},
		{"collector.grpc_address", c.GRPCAddress},
	} {
		// The section stands before each line already, where this is called.
		if err := proc.CheckListen(a.name, a.address, token, c.Insecure); err != nil {
			errs = append(errs, errors.New(strings.TrimPrefix(err.Error(), "collector.")))
		}
	}
	for _, d := range []struct {
		name        string
		value       time.Duration
		least, most time.Duration
	}{
		// Windows hold a sample for three intervals, and RunPod forgets a job 30
		// minutes after its end: hence the upper bounds.
		{"health_interval", c.HealthInterval, 100 * time.Millisecond, 10 * time.Minute},
		{"pods_interval", c.PodsInterval, 100 * time.Millisecond, 10 * time.Minute},
		{"inventory_interval", c.InventoryInterval, 100 * time.Millisecond, time.Hour},
		{"job_fast_interval", c.JobFastInterval, 100 * time.Millisecond, 10 * time.Minute},
		{"job_interval", c.JobInterval, 100 * time.Millisecond, 10 * time.Minute},
		{"max_backoff", c.MaxBackoff, 100 * time.Millisecond, 10 * time.Minute},
		{"timeout", c.Timeout, 100 * time.Millisecond, time.Minute},
	} {
		if d.value < d.least || d.value > d.most {
			errs = append(errs, fmt.Errorf("%s: %v is not between %v and %v", d.name, d.value, d.least, d.most))
		}
	}
	for _, n := range []struct {
		name        string
		value       int64
		least, most int64
	}{
		{"max_concurrent", int64(c.MaxConcurrent), 2, 1000},
		{"max_targets", int64(c.MaxTargets), 1, 100_000},
		{"max_tracked_jobs", int64(c.MaxTrackedJobs), 1, 1_000_000},
		{"max_stream_bytes", c.MaxStreamBytes, 0, 1 << 50},
	} {
		if n.value < n.least || n.value > n.most {
			errs = append(errs, fmt.Errorf("%s: %d is not between %d and %d", n.name, n.value, n.least, n.most))
		}
	}
	return errors.Join(errs...)
}

// Addresses are the addresses that a collector serves on once it runs.
type Addresses struct {
	// Ingest is where registrations and webhooks arrive.
	Ingest net.Addr
	// HTTP is where metrics and health are read.
	HTTP net.Addr
	// GRPC is where the IngestService is served.
	GRPC net.Addr
}

// Options are what [Run] needs. Begin with [DefaultOptions].
type Options struct {
	// RunPod is the account that is watched.
	RunPod RunPodConfig
	// Collector is how it is watched.
	Collector Config
	// NATS is where the event log is.
	NATS bus.Options
	// Log receives one line for each unit of work, of polls and webhooks at the level
	// debug; nil discards.
	Log *slog.Logger
	// Registerer takes the metrics; nil stands for a registry of the
	// collector's own. /metrics shows it when it can be gathered from.
	Registerer prometheus.Registerer
	// Ready is called once, when the collector polls and serves; it may be nil.
	Ready func(Addresses)
	// Getenv reads the environment for RUNPOD_API_KEY; nil stands for
	// [os.Getenv].
	Getenv func(string) string

	gatherer prometheus.Gatherer // of Registerer, where it has one
}

// DefaultOptions returns the options of a collector of RunPod itself with NATS
// at its usual address.
func DefaultOptions() Options {
	return Options{
		RunPod:    DefaultRunPodConfig(),
		Collector: DefaultConfig(),
		NATS:      bus.Options{URL: "nats://127.0.0.1:4222", Name: "tocsin-collector"},
		Log:       slog.New(slog.DiscardHandler),
		Getenv:    os.Getenv,
	}
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Registerer == nil {
		o.Registerer = proc.NewRegistry()
	}
	o.gatherer, _ = o.Registerer.(prometheus.Gatherer)
	if o.gatherer == nil {
		o.gatherer = prometheus.Gatherers{}
	}
	if o.NATS.Log == nil {
		o.NATS.Log = o.Log
	}
	if o.NATS.Registerer == nil {
		o.NATS.Registerer = o.Registerer
	}
	if o.NATS.Name == "" {
		o.NATS.Name = "tocsin-collector"
	}
	return o
}

// secrets are what the configuration holds back, in memory.
type secrets struct{ key, token, webhook secret.String }

// Check looks at what the options name, for [proc.Load]: the key of RunPod, the
// token and the secret, in their files. Its error names every mistake at once, by
// key. The values themselves are checked by the sections' Validate.
func (o Options) Check() error {
	_, err := o.withDefaults().read()
	return err
}

// resolve checks the options and reads the secrets. Its error names every
// mistake at once.
func (o Options) resolve() (secrets, error) {
	s, err := o.read()
	return s, errors.Join(inSection("runpod", o.RunPod.Validate()), inSection("collector", o.Collector.Validate()), err)
}

// read reads the secrets.
func (o Options) read() (s secrets, err error) {
	var keyErr, tokenErr, webhookErr error
	s.key, keyErr = o.RunPod.Key(o.Getenv)
	s.token, tokenErr = secret.Resolve("collector.token", o.Collector.Token, o.Collector.TokenFile)
	s.webhook, webhookErr = secret.Resolve("collector.webhook_secret", o.Collector.WebhookSecret, o.Collector.WebhookSecretFile)
	return s, errors.Join(keyErr, tokenErr, webhookErr)
}

// inSection puts the section's name before each line of err.
func inSection(name string, err error) error {
	if err == nil {
		return nil
	}
	return errors.New(name + "." + strings.ReplaceAll(err.Error(), "\n", "\n"+name+"."))
}
