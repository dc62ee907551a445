// Package fleet shows the account's own figures to Prometheus, under the names
// that users of other queues know. Figures come from the events themselves, so
// that the two cannot disagree. What RunPod did not send is no series; the
// series of a removed target vanish, as do those of a target that was not read
// for a while.
package fleet

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// StaleAfter is the time after which the series of a target that was not read
// vanish: twice the longest pause between two polls of a target that fails, as it
// is set usually.
const StaleAfter = 10 * time.Minute

var (
	jobsTotal = prometheus.NewDesc("runpod_jobs_total",
		"Jobs of the endpoint since it was made, from /health.", []string{"endpoint_id", "state"}, nil)
	queueDepth = prometheus.NewDesc("runpod_queue_depth",
		"Jobs that wait for a worker.", []string{"endpoint_id"}, nil)
	jobsInProgress = prometheus.NewDesc("runpod_jobs_in_progress",
		"Jobs that workers are at.", []string{"endpoint_id"}, nil)
	workers = prometheus.NewDesc("runpod_workers",
		"Workers by state. idle and ready overlap: do not add them up.", []string{"endpoint_id", "state"}, nil)
	endpointInfo = prometheus.NewDesc("runpod_endpoint_info",
		"Constant 1, labelled by the endpoint's name.", []string{"endpoint_id", "name"}, nil)
	podInfo = prometheus.NewDesc("runpod_pod_info",
		"Constant 1, labelled by the pod's name and status.", []string{"pod_id", "name", "status"}, nil)
	gpuUtilization = prometheus.NewDesc("runpod_gpu_utilization_percent",
		"Use of a GPU.", []string{"pod_id", "gpu"}, nil)
	gpuMemory = prometheus.NewDesc("runpod_gpu_memory_utilization_percent",
		"Use of a GPU's memory.", []string{"pod_id", "gpu"}, nil)
	podCPU = prometheus.NewDesc("runpod_pod_cpu_utilization_percent",
		"Use of a pod's processors.", []string{"pod_id"}, nil)
	podMemory = prometheus.NewDesc("runpod_pod_memory_utilization_percent",
		"Use of a pod's memory.", []string{"pod_id"}, nil)
	podCost = prometheus.NewDesc("runpod_pod_cost_dollars_per_hour",
		"What a pod costs now.", []string{"pod_id"}, nil)
	podUptime = prometheus.NewDesc("runpod_pod_uptime_seconds",
		"Time since a pod's container started.", []string{"pod_id"}, nil)
)

type key struct {
	kind eventv1.TargetKind
	id   string
}

type sample struct {
	name   string
	read   time.Time
	health *eventv1.HealthSampled
	pod    *eventv1.GpuSampled
}

// Fleet is a collector of the fleet's figures. It is safe for concurrent use.
type Fleet struct {
	maxTargets int
	staleAfter time.Duration
	duration   *prometheus.HistogramVec
	errors     *prometheus.CounterVec
	refused    prometheus.Counter

	mu      sync.Mutex
	samples map[key]sample      // guarded by mu
	jobs    map[string]struct{} // guarded by mu: endpoints with series of jobs
}

// New returns a fleet of at most maxTargets targets, registered with r. Each has
// about 15 series, so that 20,000 make 300,000. Those of a target that was not read
// for staleAfter vanish.
func New(r prometheus.Registerer, maxTargets int, staleAfter time.Duration) *Fleet {
	f := &Fleet{
		maxTargets: maxTargets,
		staleAfter: staleAfter,
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "runpod_job_duration_seconds",
			Help:    "Execution time of the jobs that were followed to their end.",
			Buckets: []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600},
		}, []string{"endpoint_id"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "runpod_job_errors_total",
			Help: "Jobs that were seen to end badly, by category.",
		}, []string{"endpoint_id", "category"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_collector_series_refused_total",
			Help: "Figures that were not shown because too many targets are.",
		}),
		samples: map[key]sample{},
		jobs:    map[string]struct{}{},
	}
	r.MustRegister(f, f.duration, f.errors, f.refused)
	return f
}

// Observe takes an event whose observation was read at read. The fact must not
// be changed after that.
func (f *Fleet) Observe(e *eventv1.Event, read time.Time) {
	target := e.GetTarget()
	switch fact := e.GetFact().(type) {
	case *eventv1.Event_HealthSampled:
		f.put(target, sample{name: target.GetName(), read: read, health: fact.HealthSampled})
	case *eventv1.Event_GpuSampled:
		f.put(target, sample{name: target.GetName(), read: read, pod: fact.GpuSampled})
	case *eventv1.Event_JobTransitioned:
		f.job(target.GetId(), fact.JobTransitioned)
	case *eventv1.Event_TargetRemoved:
		f.remove(target)
	}
}

func (f *Fleet) put(t *eventv1.Target, s sample) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := key{kind: t.GetKind(), id: t.GetId()}
	if _, known := f.samples[k]; !known && len(f.samples) >= f.maxTargets {
		f.refused.Inc()
		return
	}
	f.samples[k] = s
}

func (f *Fleet) remove(t *eventv1.Target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.samples, key{kind: t.GetKind(), id: t.GetId()})
	if _, has := f.jobs[t.GetId()]; has {
		delete(f.jobs, t.GetId())
		labels := prometheus.Labels{"endpoint_id": t.GetId()}
		f.duration.DeletePartialMatch(labels)
		f.errors.DeletePartialMatch(labels)
	}
}

func (f *Fleet) job(endpoint string, t *eventv1.JobTransitioned) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.jobs[endpoint]; !known {
		if len(f.jobs) >= f.maxTargets {
			f.refused.Inc()
			return
		}
		f.jobs[endpoint] = struct{}{}
	}
	if t.ExecutionMs != nil && ended(t.GetState()) {
		f.duration.WithLabelValues(endpoint).Observe(float64(t.GetExecutionMs()) / 1000)
	}
	if t.GetError() != nil {
		f.errors.WithLabelValues(endpoint, category(t.GetError().GetCategory())).Inc()
	}
}

func ended(s eventv1.JobState) bool {
	return s >= eventv1.JobState_JOB_STATE_COMPLETED && s <= eventv1.JobState_JOB_STATE_CANCELLED
}

func category(c eventv1.JobErrorCategory) string {
	switch c {
	case eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_VALIDATION:
		return "validation"
	case eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_TIMEOUT:
		return "timeout"
	case eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_OOM:
		return "oom"
	case eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_CRASH:
		return "crash"
	case eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_HANDLER:
		return "handler"
	default:
		return "unknown"
	}
}

// Describe tells the series that Collect gives; only Prometheus calls it.
func (f *Fleet) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		jobsTotal, queueDepth, jobsInProgress, workers, endpointInfo, podInfo,
		gpuUtilization, gpuMemory, podCPU, podMemory, podCost, podUptime,
	} {
		descs <- d
	}
}

// Collect gives the figures of all targets that were read lately; only
// Prometheus calls it.
func (f *Fleet) Collect(out chan<- prometheus.Metric) {
	f.mu.Lock()
	fresh := make(map[key]sample, len(f.samples))
	for k, s := range f.samples {
		if time.Since(s.read) > f.staleAfter {
			delete(f.samples, k)
			continue
		}
		fresh[k] = s
	}
	f.mu.Unlock()
	for k, s := range fresh {
		if s.health != nil {
			collectHealth(out, k.id, s)
		}
		if s.pod != nil {
			collectPod(out, k.id, s)
		}
	}
}

func collectHealth(out chan<- prometheus.Metric, id string, s sample) {
	emit(out, endpointInfo, prometheus.GaugeValue, 1, id, s.name)
	jobs, w := s.health.GetJobs(), s.health.GetWorkers()
	if jobs != nil {
		// RunPod's counters as they are: a reset falls, which Prometheus knows.
		emitCount(out, jobsTotal, prometheus.CounterValue, jobs.Completed, id, "completed")
		emitCount(out, jobsTotal, prometheus.CounterValue, jobs.Failed, id, "failed")
		emitCount(out, jobsTotal, prometheus.CounterValue, jobs.Retried, id, "retried")
		emitCount(out, queueDepth, prometheus.GaugeValue, jobs.InQueue, id)
		emitCount(out, jobsInProgress, prometheus.GaugeValue, jobs.InProgress, id)
	}
	if w != nil {
		emitCount(out, workers, prometheus.GaugeValue, w.Idle, id, "idle")
		emitCount(out, workers, prometheus.GaugeValue, w.Ready, id, "ready")
		emitCount(out, workers, prometheus.GaugeValue, w.Running, id, "running")
		emitCount(out, workers, prometheus.GaugeValue, w.Initializing, id, "initializing")
		emitCount(out, workers, prometheus.GaugeValue, w.Throttled, id, "throttled")
		emitCount(out, workers, prometheus.GaugeValue, w.Unhealthy, id, "unhealthy")
	}
}

func collectPod(out chan<- prometheus.Metric, id string, s sample) {
	emit(out, podInfo, prometheus.GaugeValue, 1, id, s.name, s.pod.GetStatus())
	emitFigure(out, podCost, s.pod.CostPerHour, id)
	emitFigure(out, podCPU, s.pod.CpuPercent, id)
	emitFigure(out, podMemory, s.pod.MemoryPercent, id)
	emitCount(out, podUptime, prometheus.GaugeValue, s.pod.UptimeSeconds, id)
	for _, g := range s.pod.GetGpus() {
		gpu := strconv.Itoa(int(g.GetIndex()))
		emitFigure(out, gpuUtilization, g.UtilPercent, id, gpu)
		emitFigure(out, gpuMemory, g.MemoryPercent, id, gpu)
	}
}

func emitCount(out chan<- prometheus.Metric, d *prometheus.Desc, t prometheus.ValueType, n *int64, labels ...string) {
	if n != nil {
		emit(out, d, t, float64(*n), labels...)
	}
}

func emitFigure(out chan<- prometheus.Metric, d *prometheus.Desc, n *float64, labels ...string) {
	if n != nil {
		emit(out, d, prometheus.GaugeValue, *n, labels...)
	}
}

func emit(out chan<- prometheus.Metric, d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, t, v, labels...)
}
