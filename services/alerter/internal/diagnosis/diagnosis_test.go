package diagnosis

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

var now = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// numbers are values by field.
type numbers = map[string]float64

// flat is a course that was one value for a time, up to now.
func flat(value float64, d time.Duration) []Point {
	return []Point{{At: now.Add(-d), Value: value, Known: true}}
}

// steps is a course of values that held d each, up to now.
func steps(d time.Duration, values ...float64) []Point {
	var all []Point
	for i, v := range values {
		all = append(all, Point{At: now.Add(-d * time.Duration(len(values)-i)), Value: v, Known: true})
	}
	return all
}

func of(kind eventv1.TargetKind, n numbers, more ...func(*Target)) Target {
	t := Target{
		Kind: kind, Numbers: n, Texts: map[string]string{}, Settings: map[string]bool{"workers.max": true}, Holds: true,
		Sampled: now.Add(-10 * time.Second), Series: map[string][]Point{},
	}
	for _, f := range more {
		f(&t)
	}
	return t
}

func endpoint(n numbers, more ...func(*Target)) Target {
	return of(eventv1.TargetKind_TARGET_KIND_ENDPOINT, n, more...)
}

func pod(n numbers, status string, more ...func(*Target)) Target {
	return of(eventv1.TargetKind_TARGET_KIND_POD, n, append([]func(*Target){func(t *Target) {
		if status != "" {
			t.Texts["pod.status"] = status
		}
	}}, more...)...)
}

func account(n numbers, more ...func(*Target)) Target {
	return of(eventv1.TargetKind_TARGET_KIND_ACCOUNT, n, more...)
}

func series(name string, points []Point) func(*Target) {
	return func(t *Target) { t.Series[name] = points }
}

func errorsOf(category string, n int64, ago time.Duration) func(*Target) {
	return func(t *Target) {
		e := Errors{Category: category, Count: n, Last: now.Add(-ago), Message: "it broke", JobIDs: []string{"j1"}}
		if ago <= FailWindow {
			e.Recent = n
		}
		t.Errors = append(t.Errors, e)
	}
}

// mostlyBefore makes all but some of the failed jobs ones of before FailWindow.
func mostlyBefore(recent int64) func(*Target) {
	return func(t *Target) { t.Errors[len(t.Errors)-1].Recent = recent }
}

func textOf(name, value string) func(*Target) { return func(t *Target) { t.Texts[name] = value } }

func silentFor(d time.Duration, reason eventv1.PollFailureReason) func(*Target) {
	return func(t *Target) {
		t.Holds = false
		if t.Sampled = now.Add(-d); d == 0 {
			t.Sampled = time.Time{}
		}
		if reason != 0 {
			t.Failure = &eventv1.PollFailed{Reason: reason}
		}
	}
}

// short writes a cause or a certainty as the tests name it.
func short(e interface{ String() string }) string {
	s := strings.TrimPrefix(strings.TrimPrefix(e.String(), "DIAGNOSIS_CAUSE_"), "CERTAINTY_")
	return strings.ToLower(s)
}

// answer writes a diagnosis as "cause certainty" and " or ..." with alternatives.
func answer(d *alertv1.Diagnosis) string {
	s := short(d.GetCause()) + " " + short(d.GetCertainty())
	for i, a := range d.GetAlternatives() {
		s += map[bool]string{true: " or ", false: ", "}[i == 0] + short(a)
	}
	return s
}

// full health has every counter, at zero unless named.
func health(n numbers) numbers {
	all := numbers{
		"jobs.in_queue": 0, "jobs.in_progress": 0, "workers.idle": 0, "workers.ready": 0, "workers.running": 0,
		"workers.initializing": 0, "workers.throttled": 0, "workers.unhealthy": 0, "workers.max": 5,
	}
	maps.Copy(all, n)
	return all
}

func without(n numbers, names ...string) numbers {
	for _, name := range names {
		delete(n, name)
	}
	return n
}

func TestTheTriage(t *testing.T) {
	const m = time.Minute
	for _, c := range []struct {
		name     string
		t        Target
		want     string
		sentence string
	}{
		// Nothing is known.
		{"never sampled", endpoint(nil, silentFor(0, 0)), "unreachable sure", "Nothing was ever heard"},
		{
			"silent, whatever was so before", endpoint(health(numbers{"jobs.in_queue": 9, "workers.unhealthy": 2}), silentFor(12*m, 0)),
			"unreachable sure", "Nothing was heard of it for 12m",
		},
		{
			"its polls are refused", endpoint(nil, silentFor(3*m, eventv1.PollFailureReason_POLL_FAILURE_REASON_FORBIDDEN)),
			"unreachable sure", "lacks a scope (403)",
		},
		{
			"one poll failed, and what the last said still holds",
			endpoint(health(nil), func(t *Target) { t.Failure = &eventv1.PollFailed{} }), "nothing likely", "Nothing wrong",
		},
		{"a load balancer", endpoint(nil, textOf("endpoint.type", "load_balancer")), "unknown sure", "load-balancing"},
		{"no value is not zero", endpoint(numbers{"workers.running": 1}), "unknown possible", "without jobs.in_queue."},
		{"nor is none of them", endpoint(nil), "unknown possible", "without jobs.in_queue and workers.running."},

		// The order: max workers 0, crash loop, capacity, cold start.
		{"nothing wrong", endpoint(health(numbers{"workers.idle": 2})), "nothing likely", "Nothing wrong"},
		{"a lone throttled worker of an idle endpoint", endpoint(health(numbers{"workers.throttled": 1})), "nothing likely", ""},
		{
			"everything at once", endpoint(health(numbers{
				"jobs.in_queue": 4, "workers.max": 0, "workers.unhealthy": 1, "workers.throttled": 1, "workers.initializing": 1,
			})), "disabled sure or crash_loop, no_capacity, cold_start", "Max workers is 0 and 4 jobs wait",
		},
		{
			"a crash loop that looks like a lack of capacity and a cold start", endpoint(health(numbers{
				"jobs.in_queue": 4, "workers.unhealthy": 1, "workers.throttled": 1, "workers.initializing": 1,
			})), "crash_loop likely or no_capacity, cold_start", "1 worker is unhealthy while 4 jobs wait",
		},
		{
			"a lack of capacity that looks like a cold start", endpoint(health(numbers{
				"jobs.in_queue": 1, "workers.throttled": 2, "workers.initializing": 1,
			})), "no_capacity likely or cold_start", "2 workers are throttled and none runs while 1 job waits",
		},

		// Crash loops.
		{
			"a crash loop for sure", endpoint(health(numbers{"jobs.in_queue": 41, "workers.unhealthy": 3}), series("jobs.completed", flat(7, 10*m))),
			"crash_loop sure", "A crash loop and no lack of capacity: 3 workers are unhealthy while 41 jobs wait",
		},
		{
			"something ended lately", endpoint(health(numbers{"jobs.in_queue": 41, "workers.unhealthy": 3}), series("jobs.completed", steps(3*m, 6, 6, 7))),
			"crash_loop likely", "",
		},
		{
			"some workers crash, others work", endpoint(health(numbers{"jobs.in_queue": 4, "workers.unhealthy": 1, "workers.running": 2})),
			"crash_loop likely", "Some workers crash",
		},
		{
			"the unhealthy one is just starting again", endpoint(health(numbers{"jobs.in_queue": 4, "workers.initializing": 1}),
				series("workers.unhealthy", steps(m, 0, 2, 0))),
			"crash_loop likely or cold_start", "up to 2 workers were unhealthy in the last 5m",
		},
		{
			"it was unhealthy too long ago", endpoint(health(numbers{"jobs.in_queue": 4, "workers.initializing": 1}),
				series("workers.unhealthy", steps(3*m, 2, 0, 0))),
			"cold_start likely", "",
		},
		{"unhealthy workers that nobody waits for", endpoint(health(numbers{"workers.unhealthy": 2})), "unhealthy_workers likely", "2 workers are unhealthy"},

		// Capacity.
		{
			"throttled all along", endpoint(health(numbers{"jobs.in_queue": 3, "workers.throttled": 2}), series("workers.throttled", flat(2, 5*m))),
			"no_capacity sure", "",
		},
		{
			"throttled while one runs", endpoint(health(numbers{"jobs.in_queue": 3, "workers.throttled": 2, "workers.running": 1})),
			"nothing likely", "",
		},
		{
			"throttled, and nobody knows what runs", endpoint(without(health(numbers{"jobs.in_queue": 3, "workers.throttled": 2}), "workers.running")),
			"unknown possible", "without workers.running",
		},
		{"no worker at all, just now", endpoint(health(numbers{"jobs.in_queue": 2})), "scaling_from_zero likely or no_capacity", "scales from zero"},
		{
			"no worker at all for long", endpoint(health(numbers{"jobs.in_queue": 2}), series("jobs.in_queue", flat(2, 12*m)),
				series("workers.running", flat(0, 12*m)), series("workers.initializing", flat(0, 12*m))),
			"no_capacity likely or scaling_from_zero", "There is no worker, and none ran or started for 10m while 2 jobs wait",
		},
		{
			"no worker, and RunPod does not say whether any is unhealthy", endpoint(without(health(numbers{"jobs.in_queue": 2}), "workers.unhealthy"),
				series("jobs.in_queue", flat(2, 6*m)), series("workers.running", flat(0, 6*m)), series("workers.initializing", flat(0, 6*m))),
			"no_capacity likely or scaling_from_zero, crash_loop", "",
		},
		{
			"nobody knows whether there are workers", endpoint(without(health(numbers{"jobs.in_queue": 2}), "workers.initializing")),
			"nothing likely", "",
		},

		// Cold starts.
		{"a cold start", endpoint(health(numbers{"jobs.in_queue": 2, "workers.initializing": 1})), "cold_start likely", "1 worker is starting while 2 jobs wait"},
		{
			"one that does not end", endpoint(health(numbers{"jobs.in_queue": 2, "workers.initializing": 1}), series("workers.initializing", flat(1, 8*m))),
			"cold_start likely or crash_loop", "does not end",
		},
		{"workers that start for a queue while others run", endpoint(health(numbers{"jobs.in_queue": 2, "workers.initializing": 1, "workers.running": 1})), "nothing likely", ""},

		// Max workers 0.
		{"a parked endpoint", endpoint(health(numbers{"workers.max": 0})), "disabled likely", "the next job would wait"},

		// Jobs that fail, by category.
		{"oom", endpoint(health(nil), errorsOf("oom", 4, m)), "jobs_oom likely or jobs_crash", "Jobs run out of memory"},
		{"timeout", endpoint(health(nil), errorsOf("timeout", 4, m)), "jobs_timeout likely", "their timeout"},
		{"validation", endpoint(health(nil), errorsOf("validation", 4, m)), "jobs_refused likely", "refused for their input"},
		{"handler", endpoint(health(nil), errorsOf("handler", 4, m)), "jobs_handler likely", "error of the handler"},
		{"crash", endpoint(health(nil), errorsOf("crash", 4, m)), "jobs_crash likely or jobs_oom", "their worker died"},
		{"unknown", endpoint(health(nil), errorsOf("unknown", 4, m)), "jobs_failing possible", "Jobs fail"},
		{
			"the category with most", endpoint(health(nil), errorsOf("timeout", 3, m), errorsOf("handler", 9, m)),
			"jobs_handler likely or jobs_timeout", "",
		},
		{"failures of an hour ago", endpoint(health(nil), errorsOf("oom", 9, 40*m)), "nothing likely", ""},
		{"two failures", endpoint(health(nil), errorsOf("oom", 2, m)), "nothing likely", ""},
		{
			"two failures, and nothing else", endpoint(health(nil), errorsOf("oom", 2, m), series("jobs.completed", flat(9, 20*m))),
			"jobs_oom likely or jobs_crash", "",
		},
		{
			"few of many", endpoint(health(nil), errorsOf("oom", 4, m), series("jobs.completed", steps(5*m, 0, 100, 200, 300))),
			"nothing likely", "",
		},
		{
			"few of many, of an hour in which more did", endpoint(health(nil), errorsOf("oom", 15, m), mostlyBefore(4),
				series("jobs.failed", steps(5*m, 0, 0, 0, 1)), series("jobs.completed", steps(5*m, 0, 80, 160, 250))),
			"nothing likely", "",
		},
		{
			"failures of before, behind work that stands still", endpoint(health(numbers{"jobs.in_queue": 3, "workers.running": 1}), errorsOf("oom", 15, 14*m), mostlyBefore(1),
				series("jobs.in_queue", flat(3, 11*m)), series("jobs.completed", append(flat(0, 20*m), flat(30, 14*m)...)), series("jobs.failed", append(flat(0, 20*m), flat(1, 14*m)...))),
			"no_progress possible", "",
		},
		{
			"failures of which RunPod counts fewer than are followed", endpoint(health(nil), errorsOf("oom", 30, m), mostlyBefore(20),
				series("jobs.failed", steps(5*m, 0, 0, 0, 1)), series("jobs.completed", steps(5*m, 0, 0, 160, 250))),
			"jobs_oom likely or jobs_crash", "20 jobs failed and 250 completed in the last 15m",
		},
		{
			"what fails now, and not what failed most in an hour", endpoint(health(nil), errorsOf("timeout", 30, 14*m), mostlyBefore(1), errorsOf("handler", 9, m)),
			"jobs_handler likely or jobs_timeout", "",
		},
		{
			"failures that nobody follows", endpoint(health(nil), series("jobs.failed", steps(5*m, 0, 0, 10, 20)), series("jobs.completed", steps(5*m, 0, 30, 60, 90))),
			"jobs_failing possible", "20 jobs failed and 60 completed in the last 15m",
		},
		{
			"failures behind a lack of capacity", endpoint(health(numbers{"jobs.in_queue": 3, "workers.throttled": 2}), errorsOf("timeout", 4, m)),
			"no_capacity likely or jobs_timeout", "",
		},
		{
			"asked about the failures themselves", endpoint(health(numbers{"jobs.in_queue": 3, "workers.throttled": 2}), errorsOf("timeout", 1, 50*m),
				func(t *Target) { t.Category = "timeout" }),
			"jobs_timeout likely or no_capacity", "",
		},

		// Work that does not get done.
		{
			"nothing ends", endpoint(health(numbers{"jobs.in_queue": 3, "workers.running": 1}), series("jobs.in_queue", flat(3, 11*m)),
				series("jobs.completed", flat(3, 11*m)), series("jobs.failed", flat(0, 11*m))),
			"no_progress possible", "Nothing ended for 10m",
		},
		{
			"nothing ends, and jobs are tried again", endpoint(health(numbers{"jobs.in_queue": 3, "workers.running": 1}), series("jobs.in_queue", flat(3, 11*m)),
				series("jobs.completed", flat(3, 11*m)), series("jobs.failed", flat(0, 11*m)), series("jobs.retried", steps(4*m, 0, 1, 2))),
			"no_progress likely", "2 jobs were tried again",
		},
		{
			"idle workers beside a queue", endpoint(health(numbers{"jobs.in_queue": 3, "workers.idle": 1, "workers.running": 1}),
				series("jobs.in_queue", flat(3, 3*m)), series("workers.idle", flat(1, 3*m))),
			"not_taken likely", "1 worker is idle while 3 jobs wait",
		},
		{
			"all workers are busy", endpoint(health(numbers{"jobs.in_queue": 30, "workers.running": 5}), series("jobs.completed", steps(6*m, 0, 30))),
			"saturated likely", "that is 10m of work",
		},
		{"a queue that is worked off", endpoint(health(numbers{"jobs.in_queue": 30, "workers.running": 3})), "nothing likely", ""},

		// Pods.
		{"a pod that works", pod(numbers{"pod.cost_per_hour": 2}, "RUNNING", series("gpu.util_max", flat(90, 2*time.Hour))), "nothing likely", ""},
		{"a pod that says nothing", pod(nil, ""), "unknown possible", "without pod.status"},
		{"gone, though it was silent", pod(nil, "RUNNING", silentFor(20*m, 0), textOf("pod.gone", "true")), "pod_down possible", "no longer lists"},
		{"stopped", pod(nil, "EXITED"), "pod_down possible", "Nobody said that it must"},
		{"stopped and expected", pod(nil, "EXITED", func(t *Target) { t.Labels = map[string]string{"expect": "running"} }), "pod_down sure", "EXITED."},
		{"failed", pod(nil, "ERROR"), "pod_down sure", ""},
		{"starting", pod(nil, "PROVISIONING"), "pod_starting likely", ""},
		{"restarting", pod(nil, "RUNNING", series("pod.restarts", steps(5*m, 0, 1, 2, 3))), "pod_restarting sure or memory_full", "began 2 times anew"},
		{"restarted once", pod(nil, "RUNNING", series("pod.restarts", steps(5*m, 0, 0, 0, 1))), "nothing likely", ""},
		{"without its GPUs", pod(numbers{"gpu.count": 0, "gpu.expected": 2}, "RUNNING"), "gpu_missing likely", "shows 0 of its 2 GPUs"},
		{"GPUs not known", pod(numbers{"gpu.expected": 2}, "RUNNING"), "nothing likely", ""},
		{"memory", pod(numbers{"memory.util_percent": 98}, "RUNNING"), "memory_full likely", "98 %"},
		{
			"idle", pod(numbers{"pod.cost_per_hour": 2.49}, "RUNNING", series("gpu.util_max", flat(3, 2*time.Hour)), series("cpu.util_percent", flat(4, 2*time.Hour))),
			"gpu_idle sure", "idle for 2h: never above 3 % in use, at $2.49 an hour, $4.98 in that time.",
		},
		{"idle for a while", pod(numbers{"pod.cost_per_hour": 2.49}, "RUNNING", series("gpu.util_max", flat(3, 12*m))), "gpu_idle likely", ""},
		{"idle for a moment", pod(numbers{"pod.cost_per_hour": 2.49}, "RUNNING", series("gpu.util_max", flat(3, 5*m))), "nothing likely", ""},
		{"idle and free", pod(numbers{"pod.cost_per_hour": 0}, "RUNNING", series("gpu.util_max", flat(3, 2*time.Hour))), "nothing likely", ""},
		{
			"its processors work", pod(numbers{"pod.cost_per_hour": 2.49}, "RUNNING", series("gpu.util_max", flat(3, 2*time.Hour)), series("cpu.util_percent", flat(80, 2*time.Hour))),
			"nothing likely", "",
		},

		// Accounts.
		{"an account that works", account(numbers{"polls.ok": 40, "polls.failed": 1}), "nothing likely", ""},
		{"a rejected key", account(numbers{"polls.ok": 0, "polls.failed": 40, "polls.unauthorized": 40}), "key_rejected sure", "401"},
		{"a missing scope", account(numbers{"polls.ok": 30, "polls.failed": 1, "polls.forbidden": 1}), "scope_missing sure", "403"},
		{
			"RunPod is down", account(numbers{"polls.ok": 0, "polls.failed": 40, "polls.server_error": 40, "targets.known": 40, "targets.failing": 40}),
			"runpod_down likely", "40 of 40 targets",
		},
		{
			"in a round without polls", account(numbers{"polls.ok": 0, "polls.failed": 0, "polls.server_error": 0, "targets.known": 40, "targets.failing": 40},
				series("polls.server_error", steps(15*time.Second, 9, 0))),
			"runpod_down likely", "",
		},
		{"too many polls", account(numbers{"polls.ok": 30, "polls.failed": 9, "polls.rate_limited": 9}), "rate_limited likely", "429"},
		{"half of it is gone", account(numbers{"polls.ok": 30, "polls.failed": 0}, textOf("inventory.shrunk", "true")), "inventory_shrunk likely", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Diagnose(c.t, now)
			if diff := cmp.Diff(c.want, answer(d)); diff != "" {
				t.Errorf("diagnosis (-want +got):\n%s\n%v", diff, d)
			}
			if !strings.Contains(d.GetSentence(), c.sentence) {
				t.Errorf("it says %q, want %q in it", d.GetSentence(), c.sentence)
			}
			if d.GetCause() != nothing && len(d.GetAdvice()) == 0 {
				t.Error("it does not say what to do")
			}
			if strings.Contains(d.GetSentence(), "%!") || !proto.Equal(d, Diagnose(c.t, now)) {
				t.Errorf("it says %q, and again %q", d.GetSentence(), Diagnose(c.t, now).GetSentence())
			}
		})
	}
}

// TestMinWorkersAreNoCureForTheScaleDown: RunPod ties it to requests alone.
func TestMinWorkersAreNoCureForTheScaleDown(t *testing.T) {
	advice := strings.Join(Diagnose(endpoint(health(numbers{"jobs.in_queue": 4, "workers.max": 0})), now).GetAdvice(), " ")
	if strings.Contains(advice, "min workers") || !strings.Contains(advice, "it was the scale-down: send a request now and then.") {
		t.Errorf("the advice is %q", advice)
	}
}

func TestFactsHaveValuesAndAges(t *testing.T) {
	d := Diagnose(endpoint(health(numbers{"jobs.in_queue": 4, "workers.max": 0}), errorsOf("oom", 4, time.Minute)), now)
	var got []string
	for _, f := range d.GetFacts() {
		line := f.GetName() + " " + f.GetValue()
		if f.AgeSeconds != nil {
			line += " " + text(f.GetAgeSeconds()) + "s"
		}
		got = append(got, line)
	}
	if diff := cmp.Diff([]string{"workers.max 0", "jobs.in_queue 4 10s", "workers.unhealthy 0 10s"}, got); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
	d = Diagnose(endpoint(health(nil), errorsOf("oom", 4, time.Minute)), now)
	if f := d.GetFacts()[0]; f.GetName() != "failed jobs (oom)" || f.GetValue() != "4: it broke" || f.GetAgeSeconds() != 60 {
		t.Errorf("the first fact is %v", f)
	}
}
