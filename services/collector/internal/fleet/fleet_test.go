package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/fleet"
)

func endpoint(id string) *eventv1.Target {
	return &eventv1.Target{Account: "default", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: id, Name: "name of " + id}
}

func health(id string, completed, queue int64) *eventv1.Event {
	return &eventv1.Event{Target: endpoint(id), Fact: &eventv1.Event_HealthSampled{HealthSampled: &eventv1.HealthSampled{
		Jobs:    &eventv1.JobCounts{Completed: &completed, Failed: new(int64(0)), InQueue: &queue},
		Workers: &eventv1.WorkerCounts{Running: new(int64(2)), Throttled: new(int64(0))},
	}}}
}

func end(id string, state eventv1.JobState, ms *int64, category eventv1.JobErrorCategory) *eventv1.Event {
	fact := &eventv1.JobTransitioned{JobId: "j", State: state, ExecutionMs: ms}
	if category != 0 {
		fact.Error = &eventv1.JobError{Category: category}
	}
	return &eventv1.Event{Target: endpoint(id), Fact: &eventv1.Event_JobTransitioned{JobTransitioned: fact}}
}

func removed(id string) *eventv1.Event {
	return &eventv1.Event{Target: endpoint(id), Fact: &eventv1.Event_TargetRemoved{TargetRemoved: &eventv1.TargetRemoved{}}}
}

// expect compares the series of some names.
func expect(t *testing.T, r *prometheus.Registry, want string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestTheFiguresOfAnEndpoint(t *testing.T) {
	r := prometheus.NewRegistry()
	f := fleet.New(r, 10, fleet.StaleAfter)
	f.Observe(health("ep", 31, 4), time.Now())
	expect(t, r, `
		# HELP runpod_jobs_total Jobs of the endpoint since it was made, from /health.
		# TYPE runpod_jobs_total counter
		runpod_jobs_total{endpoint_id="ep",state="completed"} 31
		runpod_jobs_total{endpoint_id="ep",state="failed"} 0
		# HELP runpod_queue_depth Jobs that wait for a worker.
		# TYPE runpod_queue_depth gauge
		runpod_queue_depth{endpoint_id="ep"} 4
		# HELP runpod_workers Workers by state. idle and ready overlap: do not add them up.
		# TYPE runpod_workers gauge
		runpod_workers{endpoint_id="ep",state="running"} 2
		runpod_workers{endpoint_id="ep",state="throttled"} 0
	`, "runpod_jobs_total", "runpod_queue_depth", "runpod_workers", "runpod_jobs_in_progress")

	f.Observe(health("ep", 3, 0), time.Now()) // RunPod began to count anew
	expect(t, r, `
		# HELP runpod_jobs_total Jobs of the endpoint since it was made, from /health.
		# TYPE runpod_jobs_total counter
		runpod_jobs_total{endpoint_id="ep",state="completed"} 3
		runpod_jobs_total{endpoint_id="ep",state="failed"} 0
	`, "runpod_jobs_total")
}

func TestAPodWithoutFiguresHasNoneOfZero(t *testing.T) {
	r := prometheus.NewRegistry()
	f := fleet.New(r, 10, fleet.StaleAfter)
	pod := func(id string, g *eventv1.GpuSampled) *eventv1.Event {
		return &eventv1.Event{
			Target: &eventv1.Target{Kind: eventv1.TargetKind_TARGET_KIND_POD, Id: id, Name: id},
			Fact:   &eventv1.Event_GpuSampled{GpuSampled: g},
		}
	}
	f.Observe(pod("busy", &eventv1.GpuSampled{
		Status: "RUNNING", CostPerHour: new(2.49),
		Gpus: []*eventv1.Gpu{{Index: 0, UtilPercent: new(0.0)}, {Index: 1}},
	}), time.Now())
	f.Observe(pod("fresh", &eventv1.GpuSampled{Status: "STARTING"}), time.Now())
	expect(t, r, `
		# HELP runpod_gpu_utilization_percent Use of a GPU.
		# TYPE runpod_gpu_utilization_percent gauge
		runpod_gpu_utilization_percent{gpu="0",pod_id="busy"} 0
		# HELP runpod_pod_cost_dollars_per_hour What a pod costs now.
		# TYPE runpod_pod_cost_dollars_per_hour gauge
		runpod_pod_cost_dollars_per_hour{pod_id="busy"} 2.49
		# HELP runpod_pod_info Constant 1, labelled by the pod's name and status.
		# TYPE runpod_pod_info gauge
		runpod_pod_info{name="busy",pod_id="busy",status="RUNNING"} 1
		runpod_pod_info{name="fresh",pod_id="fresh",status="STARTING"} 1
	`, "runpod_gpu_utilization_percent", "runpod_gpu_memory_utilization_percent", "runpod_pod_cost_dollars_per_hour",
		"runpod_pod_info", "runpod_pod_uptime_seconds", "runpod_pod_cpu_utilization_percent")
}

func TestJobsThatWereFollowed(t *testing.T) {
	r := prometheus.NewRegistry()
	f := fleet.New(r, 10, fleet.StaleAfter)
	for _, e := range []*eventv1.Event{
		end("ep", eventv1.JobState_JOB_STATE_IN_PROGRESS, nil, 0),
		end("ep", eventv1.JobState_JOB_STATE_COMPLETED, new(int64(1500)), 0),
		end("ep", eventv1.JobState_JOB_STATE_FAILED, new(int64(500)), eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_OOM),
		end("ep", eventv1.JobState_JOB_STATE_FAILED, nil, eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_CRASH),
		end("ep", eventv1.JobState_JOB_STATE_LOST, nil, 0),
	} {
		f.Observe(e, time.Now())
	}
	const errs = `
		# HELP runpod_job_errors_total Jobs that were seen to end badly, by category.
		# TYPE runpod_job_errors_total counter
		runpod_job_errors_total{category="crash",endpoint_id="ep"} 1
		runpod_job_errors_total{category="oom",endpoint_id="ep"} 1
	`
	expect(t, r, errs, "runpod_job_errors_total")
	if n := testutil.CollectAndCount(r, "runpod_job_duration_seconds"); n != 1 {
		t.Errorf("%d histograms, want 1", n)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "runpod_job_duration_seconds" {
			h := family.GetMetric()[0].GetHistogram()
			if h.GetSampleCount() != 2 || h.GetSampleSum() != 2 {
				t.Errorf("%d jobs of %v s in all, want 2 of 2 s", h.GetSampleCount(), h.GetSampleSum())
			}
		}
	}
}

func TestSeriesVanish(t *testing.T) {
	all := []string{"runpod_jobs_total", "runpod_queue_depth", "runpod_workers", "runpod_endpoint_info", "runpod_job_errors_total", "runpod_job_duration_seconds"}
	t.Run("with their target", func(t *testing.T) {
		r := prometheus.NewRegistry()
		f := fleet.New(r, 10, fleet.StaleAfter)
		f.Observe(health("ep", 1, 1), time.Now())
		f.Observe(end("ep", eventv1.JobState_JOB_STATE_FAILED, new(int64(1)), eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_OOM), time.Now())
		f.Observe(removed("ep"), time.Now())
		expect(t, r, "", all...)
	})
	t.Run("when their target is not read any more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := prometheus.NewRegistry()
			f := fleet.New(r, 10, fleet.StaleAfter)
			f.Observe(health("ep", 1, 1), time.Now())
			time.Sleep(10 * time.Minute)
			if n := testutil.CollectAndCount(f); n == 0 {
				t.Error("the figures are gone after ten minutes")
			}
			time.Sleep(time.Second)
			if n := testutil.CollectAndCount(f); n != 0 {
				t.Errorf("%d series are left", n)
			}
		})
	})
}

func TestSeriesAreBounded(t *testing.T) {
	r := prometheus.NewRegistry()
	f := fleet.New(r, 3, fleet.StaleAfter)
	for i := range 5 {
		f.Observe(health(fmt.Sprint("ep", i), 1, 1), time.Now())
		f.Observe(end(fmt.Sprint("ep", i), eventv1.JobState_JOB_STATE_COMPLETED, new(int64(1)), 0), time.Now())
	}
	if n := testutil.CollectAndCount(r, "runpod_queue_depth"); n != 3 {
		t.Errorf("%d endpoints have series, want 3", n)
	}
	expect(t, r, `
		# HELP tocsin_collector_series_refused_total Figures that were not shown because too many targets are.
		# TYPE tocsin_collector_series_refused_total counter
		tocsin_collector_series_refused_total 4
	`, "tocsin_collector_series_refused_total")
	f.Observe(removed("ep0"), time.Now())
	f.Observe(health("ep4", 1, 1), time.Now())
	if n := testutil.CollectAndCount(r, "runpod_queue_depth"); n != 3 {
		t.Errorf("after a removal %d endpoints have series, want 3", n)
	}
}
