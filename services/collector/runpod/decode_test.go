package runpod_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

func answering(t *testing.T, body string) *runpod.Client {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
}

func TestEndpointsKeepWhatIsThereAndNothingElse(t *testing.T) {
	t.Parallel()
	c := answering(t, `{"endpoints":[
	  {"id":"ep1","name":"image","type":"QUEUE","requestUrls":{"run":"https://x/run","health":"https://x/health"},
	   "image":"org/image:1","args":"--token hunter2","env":{"SECRET":"hunter2"},"registry":"reg_1","disk":20,"ports":["8000/http"],
	   "gpu":{"pools":["ADA_24"],"count":2,"allowedCudaVersions":[],"minCudaVersion":null},
	   "workers":{"min":0,"max":5,"idleTimeout":5},"scaling":{"type":"QUEUE_DELAY","queueDelay":0.5},
	   "dataCenterIds":["US-KS-2"],"networkVolumes":["vol1"],"timeout":300000,"flashboot":"OFF",
	   "createdAt":"2026-06-01T12:00:00Z","invented":{"later":[1,2]}},
	  {"id":"ep2","name":"bare","workers":{},"scaling":{"type":"REQUEST_COUNT","requestCount":4},"gpu":null,"timeout":0}]}`)
	got, err := c.Endpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []runpod.Endpoint{{
		ID: "ep1", Name: "image", Type: runpod.Queue, HealthURL: "https://x/health", Image: "org/image:1",
		GPU:        &runpod.EndpointGPU{Pools: []string{"ADA_24"}, Count: new(int64(2))},
		MinWorkers: new(int64(0)), MaxWorkers: new(int64(5)), IdleTimeout: new(5 * time.Second),
		Scaling:       &runpod.Scaling{Type: "QUEUE_DELAY", QueueDelay: new(500 * time.Millisecond)},
		DataCenterIDs: []string{"US-KS-2"}, NetworkVolumeIDs: []string{"vol1"}, ExecutionTimeout: new(5 * time.Minute),
		FlashBoot: "OFF", CreatedAt: new(time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)),
	}, {
		ID: "ep2", Name: "bare", Scaling: &runpod.Scaling{Type: "REQUEST_COUNT", RequestCount: new(int64(4))},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
}

func TestPodsTellAbsentFromZero(t *testing.T) {
	t.Parallel()
	c := answering(t, `{"pods":[
	  {"id":"p1","name":"train","status":"RUNNING","image":"i","env":{"K":"hunter2"},"cloud":"SECURE","dataCenterId":"US-KS-2","cost":2.49,
	   "gpu":{"id":"NVIDIA H100","count":2},"createdAt":"2026-06-01T12:00:00Z","startedAt":null,
	   "runtime":{"uptime":3600,"gpus":[{"util":0,"memoryUtil":78},{"memoryUtil":-1}],"cpu":{"util":250},"memory":{}}},
	  {"id":"p2","name":"no gpus","status":"RUNNING","dataCenterId":null,"cost":0,"runtime":{"uptime":-1}},
	  {"id":"p3","name":"empty","status":"RUNNING","runtime":{"gpus":[]}},
	  {"id":"p4","name":"stopped","status":"EXITED","runtime":null}]}`)
	got, err := c.Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []runpod.Pod{
		{
			ID: "p1", Name: "train", Status: runpod.PodRunning, Image: "i", Cloud: "SECURE", DataCenterID: "US-KS-2",
			CostPerHour: new(2.49), GPU: &runpod.PodGPU{ID: "NVIDIA H100", Count: new(int64(2))},
			CreatedAt: new(time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)),
			Runtime: &runpod.PodRuntime{
				Uptime: new(time.Hour), CPUPercent: new(250.0),
				GPUs: []runpod.GPUUtilization{{UtilPercent: new(0.0), MemoryPercent: new(78.0)}, {}},
			},
		},
		{ID: "p2", Name: "no gpus", Status: runpod.PodRunning, CostPerHour: new(0.0), Runtime: &runpod.PodRuntime{}},
		{ID: "p3", Name: "empty", Status: runpod.PodRunning, Runtime: &runpod.PodRuntime{GPUs: []runpod.GPUUtilization{}}},
		{ID: "p4", Name: "stopped", Status: runpod.PodExited},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
}

func TestOneBadEntryFailsAWholeList(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body string
		want string // in the endpoints' error
	}{
		"an endpoint without an id":     {`{"endpoints":[{"id":"a"},{"name":"b"}]}`, "endpoints[1]: id is missing"},
		"an id twice":                   {`{"endpoints":[{"id":"a"},{"id":"a"}]}`, `endpoints[1]: id "a" is there twice`},
		"a negative bound":              {`{"endpoints":[{"id":"a","workers":{"max":-1}}]}`, "a bound is negative"},
		"a fraction of a worker":        {`{"endpoints":[{"id":"a","workers":{"max":1.5}}]}`, "endpoints.workers.max"},
		"workers as text":               {`{"endpoints":[{"id":"a","workers":{"max":"1"}}]}`, "endpoints.workers.max is a JSON string"},
		"a time that is a number":       {`{"endpoints":[{"id":"a","createdAt":1}]}`, "endpoints.createdAt is a JSON number"},
		"an id that no call can carry":  {`{"endpoints":[{"id":"` + strings.Repeat("a", 257) + `"}]}`, "endpoints[0]: id is longer than 256 bytes"},
		"the list under another name":   {`{"data":[]}`, "endpoints is missing"},
		"an object instead of the list": {`{"endpoints":{}}`, "endpoints is a JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, err := answering(t, test.body).Endpoints(t.Context())
			if runpod.KindOf(err) != runpod.Malformed || !strings.Contains(err.Error(), test.want) || list != nil {
				t.Errorf("%v, %v; want a malformed answer: %s", list, err, test.want)
			}
		})
	}
}

func TestAFigureThatMeansNothingIsAbsentAndCostsNothingElse(t *testing.T) {
	t.Parallel()
	endpoints, err := answering(t, `{"endpoints":[{"id":"a","workers":{"min":2.0,"max":3e0,"idleTimeout":1e400},
		"gpu":{"pools":null,"count":100000000000000000000},"timeout":null,"createdAt":"2016-12-31T23:59:60Z"}]}`).Endpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []runpod.Endpoint{{ID: "a", MinWorkers: new(int64(2)), MaxWorkers: new(int64(3)), GPU: &runpod.EndpointGPU{}}}
	if diff := cmp.Diff(want, endpoints); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	pods, err := answering(t, `{"pods":[{"id":"a","status":"RUNNING","cost":-1e999,"startedAt":"soon",
		"runtime":{"uptime":1e23,"gpus":[{"util":5e1,"memoryUtil":-1}],"cpu":null}}]}`).Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantPods := []runpod.Pod{{ID: "a", Status: runpod.PodRunning, Runtime: &runpod.PodRuntime{
		GPUs: []runpod.GPUUtilization{{UtilPercent: new(50.0)}},
	}}}
	if diff := cmp.Diff(wantPods, pods); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
}

func TestAnAnswerAboutSomethingElseIsMalformed(t *testing.T) {
	t.Parallel()
	c := answering(t, `{"id":"other","name":"x","status":"RUNNING"}`)
	for _, name := range []string{"endpoint", "pod", "job"} {
		if err := calls[name](t.Context(), c); runpod.KindOf(err) != runpod.Malformed {
			t.Errorf("%s: %v, want malformed", name, err)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	const jobs = `{"completed":31,"failed":1,"inProgress":0,"inQueue":2,"retried":1}`
	fullJobs := runpod.HealthJobs{
		Completed: new(int64(31)), Failed: new(int64(1)), InProgress: new(int64(0)), InQueue: new(int64(2)), Retried: new(int64(1)),
	}
	for name, test := range map[string]struct {
		body string
		want runpod.Health
		bad  string // the error, when there is one
	}{
		"all counts": {
			body: `{"jobs":` + jobs + `,"workers":{"idle":1,"initializing":2,"ready":3,"running":4,"throttled":5,"unhealthy":6,"later":7},"x":1}`,
			want: runpod.Health{Jobs: fullJobs, Workers: runpod.HealthWorkers{
				Idle: new(int64(1)), Initializing: new(int64(2)), Ready: new(int64(3)),
				Running: new(int64(4)), Throttled: new(int64(5)), Unhealthy: new(int64(6)),
			}},
		},
		"the two workers fields of older endpoints": {
			body: `{"jobs":` + jobs + `,"workers":{"idle":0,"running":1}}`,
			want: runpod.Health{Jobs: fullJobs, Workers: runpod.HealthWorkers{Idle: new(int64(0)), Running: new(int64(1))}},
		},
		"whole numbers in other clothes": {
			body: `{"jobs":{"failed":3.0,"completed":2e1},"workers":{}}`,
			want: runpod.Health{Jobs: runpod.HealthJobs{Failed: new(int64(3)), Completed: new(int64(20))}},
		},
		"null is absent":    {body: `{"jobs":{"failed":null},"workers":{}}`, want: runpod.Health{}},
		"no workers":        {body: `{"jobs":` + jobs + `}`, bad: "workers is missing"},
		"no jobs":           {body: `{"workers":{}}`, bad: "jobs is missing"},
		"jobs is null":      {body: `{"jobs":null,"workers":{}}`, bad: "jobs is missing"},
		"a negative count":  {body: `{"jobs":{"inQueue":-1},"workers":{}}`, bad: "inQueue is not a count"},
		"half a worker":     {body: `{"jobs":{},"workers":{"idle":0.5}}`, bad: "idle is not a count"},
		"a count as text":   {body: `{"jobs":{},"workers":{"idle":"1"}}`, bad: "idle is not a count"},
		"a count too large": {body: `{"jobs":{},"workers":{"idle":99999999999999999999}}`, bad: "idle is not a count"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := answering(t, test.body).Health(t.Context(), runpod.Endpoint{ID: "ep1"})
			if test.bad != "" {
				if runpod.KindOf(err) != runpod.Malformed || !strings.Contains(err.Error(), test.bad) {
					t.Fatalf("error %v, want malformed: %s", err, test.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("health (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJobStatus(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body string
		want runpod.Job
		bad  string
	}{
		"queued": {body: `{"id":"job-1","status":"IN_QUEUE"}`, want: runpod.Job{Status: runpod.JobInQueue}},
		"running, by the alias": {
			body: `{"id":"job-1","status":"RUNNING","delayTime":61372,"workerId":"w1","output":"half way"}`,
			want: runpod.Job{Status: runpod.JobInProgress, DelayTime: new(61372 * time.Millisecond), WorkerID: "w1"},
		},
		"completed, with an output that is not kept": {
			body: `{"delayTime":1,"executionTime":2500,"id":"job-1","output":{"status":"FAILED","error":"no \"}"},"status":"COMPLETED","retries":1}`,
			want: runpod.Job{
				Status: runpod.JobCompleted, DelayTime: new(time.Millisecond), ExecutionTime: new(2500 * time.Millisecond), Retries: new(int64(1)),
			},
		},
		"failed": {
			body: `{"id":"job-1","status":"FAILED","error":"job timed out after 1 retries"}`,
			want: runpod.Job{Status: runpod.JobFailed, Failure: &runpod.Failure{Category: runpod.Crash, Message: "job timed out after 1 retries"}},
		},
		"timed out without an error": {
			body: `{"id":"job-1","status":"TIMED_OUT"}`,
			want: runpod.Job{Status: runpod.JobTimedOut, Failure: &runpod.Failure{Category: runpod.TimedOut}},
		},
		"cancelled":        {body: `{"status":"CANCELLED"}`, want: runpod.Job{Status: runpod.JobCancelled}},
		"an unknown state": {body: `{"status":"PAUSED"}`, bad: `"PAUSED" is not known`},
		"no state":         {body: `{"id":"job-1"}`, bad: "status is missing"},
		"negative retries": {body: `{"status":"FAILED","retries":-1}`, bad: "retries is negative"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := answering(t, test.body).JobStatus(t.Context(), "ep1", "job-1")
			if test.bad != "" {
				if runpod.KindOf(err) != runpod.Malformed || !strings.Contains(err.Error(), test.bad) {
					t.Fatalf("error %v, want malformed: %s", err, test.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			test.want.ID = "job-1"
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("job (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFinalStatesAreFour(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"IN_QUEUE": false, "IN_PROGRESS": false, "RUNNING": false,
		"COMPLETED": true, "FAILED": true, "CANCELLED": true, "TIMED_OUT": true,
	} {
		s, err := runpod.ParseJobStatus(text)
		if err != nil || s.Final() != want {
			t.Errorf("%s: final %v, %v; want %v", text, s.Final(), err, want)
		}
	}
}

func TestAJobWithALargeOutputIsReadAndOneWithALargeRestIsNot(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 5<<20)
	got, err := answering(t, `{"id":"job-1","output":["`+large+`"],"status":"COMPLETED"}`).JobStatus(t.Context(), "ep1", "job-1")
	if err != nil || got.Status != runpod.JobCompleted {
		t.Errorf("5 MiB of output: %+v, %v; want COMPLETED", got, err)
	}
	_, err = answering(t, `{"id":"job-1","error":"`+large+`","status":"FAILED"}`).JobStatus(t.Context(), "ep1", "job-1")
	if runpod.KindOf(err) != runpod.TooLarge {
		t.Errorf("5 MiB of error: %v, want too large", err)
	}
}
