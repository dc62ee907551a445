package runpod_test

import (
	"fmt"
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
	if diff := cmp.Diff(want, got.Items); diff != "" || got.Unreadable != nil {
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
	if diff := cmp.Diff(want, got.Items); diff != "" || got.Unreadable != nil {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
}

func TestAListOfWhichNothingCanBeUsedIsMalformed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body string
		want string // in the endpoints' error
	}{
		"an endpoint without an id":       {`{"endpoints":[{"id":"a"},{"name":"b"}]}`, "endpoints[1]: id is missing"},
		"an id of another type":           {`{"endpoints":[{"id":"a"},{"id":7}]}`, "endpoints[1]: id is a JSON number"},
		"an id that is a step in a path":  {`{"endpoints":[{"id":"a"},{"id":".."}]}`, "endpoints[1]: id is a step in a path"},
		"an id that no call can carry":    {`{"endpoints":[{"id":"a"},{"id":"` + strings.Repeat("a", 257) + `"}]}`, "endpoints[1]: id is longer than 256 bytes"},
		"an entry that is none":           {`{"endpoints":[{"id":"a"},"b"]}`, "endpoints[1]: it is a JSON string"},
		"null for an entry":               {`{"endpoints":[{"id":"a"},null]}`, "endpoints[1]: id is missing"},
		"a bad entry and no other":        {`{"endpoints":[{"id":"a","workers":{"max":"1"}}]}`, "endpoints[0]: workers.max is a JSON string"},
		"bad entries alone":               {`{"endpoints":[{"id":"a","name":1},{"id":"b","name":1}]}`, "endpoints[0]: name is a JSON number"},
		"the list under another name":     {`{"data":[]}`, "endpoints is missing"},
		"null instead of the list":        {`{"endpoints":null}`, "endpoints is missing"},
		"an object instead of the list":   {`{"endpoints":{}}`, "endpoints is a JSON object"},
		"a text instead of the list":      {`{"endpoints":"none"}`, "endpoints is neither list nor object"},
		"a list instead of the object":    {`[{"id":"a"}]`, "the answer is a JSON array"},
		"the list twice":                  {`{"endpoints":[],"endpoints":[]}`, "endpoints is there twice"},
		"a list that is cut off":          {`{"endpoints":[{"id":"a"},{"id":"b"`, "not JSON"},
		"a list that is cut off an entry": {`{"endpoints":[{"id":"a"},`, "not JSON"},
		"a list that is not closed":       {`{"endpoints":[{"id":"a"}`, "not JSON"},
		"an object that is not closed":    {`{"endpoints":[{"id":"a"}]`, "not JSON"},
		"another value after it":          {`{"endpoints":[]}{}`, "not JSON"},
		"a page after it":                 {`{"endpoints":[]}<html>`, "not JSON"},
		"no comma between two":            {`{"endpoints":[{"id":"a"}{"id":"b"}]}`, "not JSON"},
		"a deep well":                     {`{"endpoints":` + strings.Repeat("[", 1<<20), "not JSON"},
		"a deep well beside the list":     {`{"x":` + strings.Repeat("[", 1<<20), "not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, err := answering(t, test.body).Endpoints(t.Context())
			if runpod.KindOf(err) != runpod.Malformed || !strings.Contains(err.Error(), test.want) || list.Items != nil || list.Unreadable != nil {
				t.Errorf("%v, %v; want a malformed answer: %s", list, err, test.want)
			}
		})
	}
}

func TestAnEntryThatCannotBeReadCostsTheOthersNothing(t *testing.T) {
	t.Parallel()
	for entry, want := range map[string]string{
		`"workers":{"max":-1}`:     "workers: a bound is negative",
		`"workers":{"max":1.5}`:    "workers.max is a JSON number with a fraction",
		`"workers":{"max":"1"}`:    "workers.max is a JSON string",
		`"workers":7`:              "workers is a JSON number",
		`"createdAt":1`:            "createdAt is a JSON number",
		`"name":["x"]`:             "name is a JSON array",
		`"gpu":"RTX"`:              "gpu is a JSON string",
		`"dataCenterIds":["US",5]`: "is a JSON number",
		`"dataCenterIds":[""` + strings.Repeat(`,""`, 1000) + `]`: "dataCenterIds is a JSON list of too many parts",
		`"id":"good"`: "the id is there twice",
	} {
		body := `{"endpoints":[{"id":"good"}, {` + entry + `,"env":{"K":"hunter2"},"id":"bad"},{"id":"last","workers":{"max":3}}],"x":{"y":[]}}`
		if strings.Contains(entry, `"id"`) {
			body = strings.Replace(body, `,"id":"bad"`, "", 1)
		}
		list, err := answering(t, body).Endpoints(t.Context())
		if err != nil {
			t.Errorf("%s: %v", entry, err)
			continue
		}
		if len(list.Items) != 2 || list.Items[0].ID != "good" || list.Items[1].MaxWorkers == nil {
			t.Errorf("%s: read %+v, want the other two", entry, list.Items)
		}
		if len(list.Unreadable) != 1 || !strings.HasPrefix(list.Unreadable[0].Detail, "endpoints[1]: ") ||
			!strings.Contains(list.Unreadable[0].Detail, want) || list.Unreadable[0].ID == "" || strings.Contains(list.Unreadable[0].Detail, "hunter2") {
			t.Errorf("%s: unreadable %+v, want the second: %s", entry, list.Unreadable, want)
		}
	}
	pods, err := answering(t, `{"pods":[{"id":"a"},{"status":"RUNNING","runtime":{"gpus":7},"id":"b"},{"id":"c","status":"EXITED"}]}`).Pods(t.Context())
	if err != nil || len(pods.Items) != 1 || len(pods.Unreadable) != 2 || pods.Unreadable[0].ID != "a" || pods.Unreadable[1].ID != "b" {
		t.Errorf("pods %+v, %v; want c alone, and a and b unreadable", pods, err)
	}
}

func TestAListIsBoundedByItsEntriesToo(t *testing.T) {
	t.Parallel()
	many := func(n int) string { return `{"pods":[{}` + strings.Repeat(`,{}`, n-1) + `]}` }
	named := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,{"id":"p%d","status":"EXITED"}`, i)
		}
		return `{"pods":[` + b.String()[1:] + `]}`
	}
	for name, test := range map[string]struct {
		body string
		want runpod.Kind
	}{
		"a million that say nothing": {many(1 << 20), runpod.Malformed},
		"as many as are borne":       {named(100), ""},
		"one more":                   {named(101), runpod.TooLarge},
	} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, test.body) }, func(o *runpod.Options) { o.MaxEntries = 100 })
		if list, err := c.Pods(t.Context()); runpod.KindOf(err) != test.want || (err == nil) != (len(list.Items) == 100) {
			t.Errorf("%s: %d pods, %v; want %q", name, len(list.Items), err, test.want)
		}
	}
}

func TestALoadBalancerIsKnownByItsURLsWhereItsTypeIsMissing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		entry string
		want  runpod.EndpointType
	}{
		"the URLs of a load balancer":         {`"requestUrls":{"base":"https://a.api.runpod.ai","health":"https://a.api.runpod.ai/ping"}`, runpod.LoadBalancer},
		"the URLs of a queue":                 {`"requestUrls":{"run":"https://x/run","health":"https://x/health"}`, ""},
		"no URLs":                             {`"requestUrls":null`, ""},
		"its type goes before its URLs":       {`"type":"QUEUE","requestUrls":{"base":"https://x"}`, runpod.Queue},
		"null for its type":                   {`"type":null,"requestUrls":{"base":"https://x"}`, runpod.LoadBalancer},
		"a type that RunPod may invent later": {`"type":"STREAM","requestUrls":{"base":"https://x"}`, "STREAM"},
	} {
		list, err := answering(t, `{"endpoints":[{"id":"a",`+test.entry+`}]}`).Endpoints(t.Context())
		if err != nil || list.Items[0].Type != test.want {
			t.Errorf("%s: %+v, %v; want type %q", name, list, err, test.want)
		}
	}
}

func TestACostMayStandInQuotes(t *testing.T) {
	t.Parallel()
	for cost, want := range map[string]*float64{
		`0.44`: new(0.44), `"0.74"`: new(0.74), `"0"`: new(0.0), `null`: nil, `"-1"`: nil, `-1`: nil, `"1e999"`: nil,
	} {
		list, err := answering(t, `{"pods":[{"id":"a","status":"RUNNING","cost":`+cost+`}]}`).Pods(t.Context())
		if err != nil {
			t.Errorf("%s: %v", cost, err)
		} else if diff := cmp.Diff(want, list.Items[0].CostPerHour); diff != "" {
			t.Errorf("%s (-want +got):\n%s", cost, diff)
		}
	}
	for _, cost := range []string{`""`, `"free"`, `"NaN"`, `"0x10"`, `"1 2"`, `true`, `{}`, `"[1]"`} {
		if _, err := answering(t, `{"pods":[{"id":"a","status":"RUNNING","cost":`+cost+`}]}`).Pods(t.Context()); runpod.KindOf(err) != runpod.Malformed {
			t.Errorf("%s: %v, want malformed", cost, err)
		}
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
	if diff := cmp.Diff(want, endpoints.Items); diff != "" {
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
	if diff := cmp.Diff(wantPods, pods.Items); diff != "" {
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
		"figures that are none cost the end of the job nothing": {
			body: `{"id":"job-1","status":"COMPLETED","delayTime":"5","executionTime":{},"workerId":7,"retries":-1}`,
			want: runpod.Job{Status: runpod.JobCompleted},
		},
		"null everywhere": {
			body: `{"id":null,"status":"FAILED","delayTime":null,"executionTime":null,"workerId":null,"retries":null,"error":null,"output":null}`,
			want: runpod.Job{Status: runpod.JobFailed, Failure: &runpod.Failure{Category: runpod.Unknown}},
		},
		"a fraction of a retry and of a millisecond": {
			body: `{"status":"IN_PROGRESS","retries":0.5,"delayTime":0.5}`,
			want: runpod.Job{Status: runpod.JobInProgress, DelayTime: new(500 * time.Microsecond)},
		},
		"a state of another type": {body: `{"status":7}`, bad: "status is a JSON number"},
		"an id of another type":   {body: `{"id":7,"status":"COMPLETED"}`, bad: "id is a JSON number"},
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
	sync := strings.Repeat("y", 20_000_000) // the largest result that RunPod keeps
	if got, err = answering(t, `{"id":"job-1","output":"`+sync+`","status":"COMPLETED"}`).JobStatus(t.Context(), "ep1", "job-1"); err != nil || got.Status != runpod.JobCompleted {
		t.Errorf("20 MB of output: %+v, %v; want COMPLETED", got, err)
	}
	_, err = answering(t, `{"id":"job-1","error":[1`+strings.Repeat(",1", 1<<20)+`],"status":"FAILED"}`).JobStatus(t.Context(), "ep1", "job-1")
	if runpod.KindOf(err) != runpod.TooLarge {
		t.Errorf("2 MiB of numbers for an error: %v, want too large", err)
	}
}

func TestAJobWithALongErrorIsSeenToFail(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		error string
		want  runpod.Failure
	}{
		"text": {`"CUDA out of memory ` + strings.Repeat("x", 2<<20) + `"`, runpod.Failure{
			Category: runpod.OutOfMemory, Message: "CUDA out of memory " + strings.Repeat("x", 512-19),
		}},
		"text of escapes": {`"boom ` + strings.Repeat(`\u0041`, 1<<18) + `"`, runpod.Failure{Category: runpod.Unknown, Message: "boom " + strings.Repeat("A", 512-5)}},
		"the library's JSON with a long traceback": {
			`"{\"error_type\":\"<class 'ValueError'>\",\"error_message\":\"no such voice\",\"error_traceback\":\"` + strings.Repeat(`\\\n at \\\"x\\\"`, 1<<18) + `\"}"`,
			runpod.Failure{Category: runpod.HandlerError, Type: "ValueError", Message: "no such voice"},
		},
	} {
		got, err := answering(t, `{"id":"job-1","error":`+test.error+`,"executionTime":7,"status":"FAILED"}`).JobStatus(t.Context(), "ep1", "job-1")
		if err != nil || got.Status != runpod.JobFailed || *got.ExecutionTime != 7*time.Millisecond {
			t.Errorf("%s: %+v, %v; want FAILED", name, got, err)
			continue
		}
		if diff := cmp.Diff(&test.want, got.Failure); diff != "" {
			t.Errorf("%s: failure (-want +got):\n%s", name, diff)
		}
	}
}

// FuzzList checks that a list never names a target twice, nor one that no call
// could ask about.
func FuzzList(f *testing.F) {
	f.Add([]byte(`{"endpoints":[{"id":"a"},{"id":"a"},{"id":"b","name":5}]}`))
	f.Add([]byte(`{"x":[{}],"endpoints":[{"id":"a","gpu":{"pools":["x"]}} , null]}`))
	f.Add([]byte(`{"endpoints":[{"id":"\u0000"}]} `))
	f.Fuzz(func(t *testing.T, body []byte) {
		list, err := answering(t, string(body)).Endpoints(t.Context())
		if (err == nil) == (list.Items == nil) {
			t.Errorf("%+v, %v", list, err)
		}
		seen := map[string]bool{}
		for _, e := range list.Items {
			if e.ID == "" || e.ID == ".." || len(e.ID) > 256 || seen[e.ID] {
				t.Errorf("id %q", e.ID)
			}
			seen[e.ID] = true
		}
		for _, u := range list.Unreadable {
			if u.ID == "" || u.Detail == "" {
				t.Errorf("unreadable %+v", u)
			}
		}
	})
}
