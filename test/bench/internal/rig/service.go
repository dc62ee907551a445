package rig

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Spec says which service a process runs, and how.
type Spec struct {
	// Service is "collector", "alerter" or "notifier".
	Service string
	// Name tells several processes of a service apart; empty stands for Service.
	Name string
	// NATS and Redis are the servers; the rig fills them in.
	NATS, Redis string
	// Notifier is where an alerter sends alerts.
	Notifier string
	// Rules are files of rules beside the default pack, by name.
	Rules map[string][]byte
	// Routes are a notifier's routes and receivers.
	Routes []byte
	// RunPod is the address of a server that speaks RunPod's API, and Key what it
	// is asked with, for a collector.
	RunPod, Key string
	// HealthInterval is the time between two polls of an endpoint by a collector.
	HealthInterval time.Duration
	// SnapshotInterval is the time between two snapshots of a partition of an
	// alerter; 0 leaves it as it is shipped.
	SnapshotInterval time.Duration
}

// Ready is what a service's process says when it works.
type Ready struct {
	// GRPC and HTTP are the service's addresses.
	GRPC, HTTP string
	// Profiler is where the process tells its memory and gives profiles.
	Profiler string
}

// Service is a running process of a service.
type Service struct {
	Ready
	// Name is the name of the process.
	Name string

	rig     *Rig
	process *process
}

// ServeArgument is the argument by which the benchmark's program runs a service:
// main and TestMain must call Serve then.
const ServeArgument = "serve-for-benchmark"

// Start runs a service, and returns once it works.
func (r *Rig) Start(ctx context.Context, s Spec) (*Service, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the program to run: %w", err)
	}
	if s.Name == "" {
		s.Name = s.Service
	}
	s.NATS, s.Redis = r.NATS.URL(), r.Redis.Address
	spec := filepath.Join(r.dir, s.Name+".json")
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write what %s is to run: %w", s.Name, err)
	}
	if err := os.WriteFile(spec, text, 0o600); err != nil {
		return nil, fmt.Errorf("write what %s is to run: %w", s.Name, err)
	}
	said, says := io.Pipe()
	p, err := start(r.dir, s.Name, says, self, ServeArgument, spec)
	if err != nil {
		return nil, err
	}
	go func() {
		<-p.done
		_ = says.Close() // a pipe's Close has no error
	}()
	service := &Service{Name: s.Name, rig: r, process: p}
	r.services = append(r.services, service)
	ready := make(chan error, 1)
	go func() {
		line, err := bufio.NewReader(said).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &service.Ready)
		}
		ready <- err
		_, _ = io.Copy(io.Discard, said)
	}()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case err := <-ready:
		if err != nil {
			p.kill()
			return nil, fmt.Errorf("start %s: %w: %s", s.Name, err, p.tail())
		}
		return service, nil
	case <-ctx.Done():
		p.kill()
		return nil, fmt.Errorf("start %s: %w: %s", s.Name, ctx.Err(), p.tail())
	}
}

// Stop ends the service as Ctrl-C does.
func (s *Service) Stop() error { return s.process.stop() }

// Kill ends the service as a power cut would.
func (s *Service) Kill() { s.process.kill() }

// Ended tells whether the process has ended.
func (s *Service) Ended() bool { return s.process.ended() }

// Usage returns what the process has used.
func (s *Service) Usage() Usage { return s.process.usage() }

// Memory is what a process has on its heap.
type Memory struct {
	// Live are the bytes that were reachable after a collection of garbage.
	Live uint64
	// InUse are the bytes of the heap's spans before it, garbage included.
	InUse uint64
}

// Memory collects the garbage of the process and returns what is left.
func (s *Service) Memory(ctx context.Context) (Memory, error) {
	var m Memory
	body, err := fetch(ctx, http.MethodPost, "http://"+s.Profiler+"/memory")
	if err != nil {
		return m, fmt.Errorf("read the memory of %s: %w", s.Name, err)
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&m); err != nil {
		return m, fmt.Errorf("read the memory of %s: %w", s.Name, err)
	}
	return m, nil
}

// Metrics are the figures of a service by name.
type Metrics map[string]*dto.MetricFamily

// Metrics reads the service's own figures.
func (s *Service) Metrics(ctx context.Context) (Metrics, error) {
	body, err := fetch(ctx, http.MethodGet, "http://"+s.HTTP+"/metrics")
	if err != nil {
		return nil, fmt.Errorf("read the metrics of %s: %w", s.Name, err)
	}
	defer body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	m, err := parser.TextToMetricFamilies(body)
	if err != nil {
		return nil, fmt.Errorf("read the metrics of %s: %w", s.Name, err)
	}
	return m, nil
}

// Sum adds up a counter or gauge over its labels.
func (m Metrics) Sum(name string) float64 {
	sum := 0.0
	for _, metric := range m[name].GetMetric() {
		sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
	}
	return sum
}

// Mean returns the mean of what a histogram observed since before was read.
func (m Metrics) Mean(before Metrics, name string) float64 {
	var sum, count float64
	for i, all := range []Metrics{before, m} {
		for _, metric := range all[name].GetMetric() {
			sign := float64(2*i - 1)
			sum += sign * metric.GetHistogram().GetSampleSum()
			count += sign * float64(metric.GetHistogram().GetSampleCount())
		}
	}
	if count == 0 {
		return 0
	}
	return sum / count
}

// Profile writes processor profiles of the services and of NATS, from now until
// the returned function is called, and then profiles of their heaps. NATS, which
// must be told beforehand how long to watch, is watched for d. Without a place for
// profiles it does nothing.
func (r *Rig) Profile(ctx context.Context, d time.Duration, services ...*Service) (stop func() error, err error) {
	if r.opts.Profiles == "" {
		return func() error { return nil }, nil
	}
	file := func(process, kind string) string {
		return filepath.Join(r.opts.Profiles, fmt.Sprintf("%s-%s.%s.pprof", r.opts.Name, process, kind))
	}
	for _, s := range services {
		body, err := fetch(ctx, http.MethodPost, "http://"+s.Profiler+"/cpu/start")
		if err != nil {
			return nil, fmt.Errorf("profile %s: %w", s.Name, err)
		}
		body.Close()
	}
	nats := make(chan error, 1)
	go func() { nats <- r.NATS.profile(ctx, file("nats", "cpu"), d) }()
	return func() error {
		for _, s := range services {
			if err := download(ctx, http.MethodPost, "http://"+s.Profiler+"/cpu/stop", file(s.Name, "cpu")); err != nil {
				return fmt.Errorf("profile %s: %w", s.Name, err)
			}
			if err := download(ctx, http.MethodGet, "http://"+s.Profiler+"/heap", file(s.Name, "heap")); err != nil {
				return fmt.Errorf("profile %s: %w", s.Name, err)
			}
		}
		return <-nats
	}, nil
}
