package pack

import (
	"fmt"
	"strings"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
)

// The categories of failures.
const (
	validation = eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_VALIDATION
	timedOut   = eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_TIMEOUT
	outOfMem   = eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_OOM
	crashed    = eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_CRASH
	handler    = eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_HANDLER
)

// The states of jobs.
const (
	inQueue    = eventv1.JobState_JOB_STATE_IN_QUEUE
	inProgress = eventv1.JobState_JOB_STATE_IN_PROGRESS
	completed  = eventv1.JobState_JOB_STATE_COMPLETED
	lost       = eventv1.JobState_JOB_STATE_LOST
	unknown    = eventv1.JobState_JOB_STATE_OUTCOME_UNKNOWN
)

// fails says that n jobs of the endpoint failed, a second apart.
func (w *world) fails(n int, category eventv1.JobErrorCategory, kind string) {
	w.t.Helper()
	for i := range n {
		w.JobFails(img, fmt.Sprintf("%s-%d-%d", kind, w.Now().UnixMilli(), i), category, kind)
		w.Advance(time.Second)
	}
}

var followedProofs = []proof{
	{
		rule: "JobFailed",
		fires: story{"at the third failure of a category, and the second out of memory", func(w *world) {
			w.turns(share(10, 0))
			w.fails(2, handler, "KeyError")
			w.stays(time.Minute)
			w.fails(2, outOfMem, "OutOfMemoryError")
			if a := w.firesAfter(-2 * time.Second); a.GetLabels()["category"] != "oom" {
				w.t.Errorf("the labels are %v", a.GetLabels())
			}
			w.fails(1, handler, "KeyError")
			a := w.firesAfter(-time.Second)
			if want := "jobs of vision-img fail with handler: 3 in 10 minutes"; summary(a) != want {
				w.t.Errorf("the summary is %q, want %q", summary(a), want)
			}
			if want := "An error not seen in the last 48 hours: KeyError: it went wrong"; a.GetAnnotations()["description"] != want {
				w.t.Errorf("the description is %q, want %q", a.GetAnnotations()["description"], want)
			}
			for name, value := range a.GetLabels() {
				if strings.Contains(value, "KeyError") {
					w.t.Errorf("the label %s=%q holds what belongs to the evidence", name, value)
				}
			}
			if ids := a.GetEvidence().GetErrorGroups()[0].GetJobIds(); len(ids) != 3 {
				w.t.Errorf("the evidence names the jobs %v, want 3", ids)
			}
		}},
		holds: story{"as one alert, however many jobs fail", func(w *world) {
			w.turns(share(10, 0))
			w.fails(3, timedOut, "timeout")
			w.firesAfter(-time.Second)
			for range 50 {
				w.fails(20, timedOut, "timeout")
				w.stays(9 * time.Minute)
			}
			w.stays(30 * time.Minute)
		}},
		resolves: story{"30 minutes after fewer than 3 failed in 10", func(w *world) {
			w.turns(share(10, 0))
			w.fails(3, handler, "KeyError")
			w.firesAfter(-time.Second)
			w.resolvesAfter(10*time.Minute - 3*time.Second + 30*time.Minute)
		}},
		quiet: []story{
			{"two failures every 11 minutes", func(w *world) {
				w.turns(share(10, 0))
				for range 60 {
					w.fails(2, handler, "KeyError")
					w.quiet(11 * time.Minute)
				}
			}},
			{"one job out of memory now and then", func(w *world) {
				w.turns(share(10, 0))
				for range 60 {
					w.fails(1, outOfMem, "OutOfMemoryError")
					w.fails(1, crashed, "crash")
					w.quiet(11 * time.Minute)
				}
			}},
			{"one job that three sources see failing", func(w *world) {
				w.turns(share(10, 0))
				for range 20 {
					w.JobFails(img, "the-same", handler, "KeyError")
					w.quiet(step)
				}
			}},
			{"refused inputs", func(w *world) {
				w.turns(share(10, 0))
				w.fails(50, validation, "ValidationError")
				w.quiet(time.Hour)
			}},
		},
	},
	{
		rule: "JobInputRefused",
		fires: story{"at the third refused input, as an info", func(w *world) {
			w.turns(share(10, 0))
			w.fails(3, validation, "ValidationError")
			a := w.firesAfter(-time.Second)
			if a.GetLabels()["severity"] != "info" || a.GetLabels()["category"] != "validation" {
				w.t.Errorf("the labels are %v", a.GetLabels())
			}
		}},
		holds: story{"while inputs are refused", func(w *world) {
			w.turns(share(10, 0))
			w.fails(3, validation, "ValidationError")
			w.firesAfter(-time.Second)
			for range 20 {
				w.fails(5, validation, "ValidationError")
				w.stays(35 * time.Minute)
			}
		}},
		resolves: story{"30 minutes after fewer than 3 were refused in 10", func(w *world) {
			w.turns(share(10, 0))
			w.fails(3, validation, "ValidationError")
			w.firesAfter(-time.Second)
			w.resolvesAfter(10*time.Minute - 3*time.Second + 30*time.Minute)
		}},
		quiet: []story{{"other failures", func(w *world) {
			w.turns(share(10, 0))
			w.fails(50, handler, "KeyError")
			w.quiet(time.Hour)
		}}},
	},
	{
		rule: "JobStuckInQueue",
		fires: story{"when a job has waited for 10 minutes", func(w *world) {
			w.piles(img, 7, 1)
			w.follows("stuck", inQueue)
			a := w.firesAfter(10 * time.Minute)
			if want := "a job of vision-img has waited for 10m"; !strings.Contains(summary(a), want) {
				w.t.Errorf("the summary is %q, want %q in it", summary(a), want)
			}
			if strings.Contains(fmt.Sprint(a.GetLabels()), "stuck") {
				w.t.Errorf("the labels %v hold the job's id", a.GetLabels())
			}
		}},
		holds: story{"while it waits, and while nothing is known", func(w *world) {
			w.piles(img, 7, 1)
			w.follows("stuck", inQueue)
			w.stays(10*time.Minute - step)
			w.firesAfter(step)
			w.stays(3 * time.Hour)
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"when it starts", func(w *world) {
			w.piles(img, 7, 1)
			w.follows("stuck", inQueue)
			w.firesAfter(10 * time.Minute)
			w.JobIs(img, "stuck", inProgress)
			w.resolvesAfter(0)
		}},
		quiet: []story{
			{"a wait of half an hour where jobs usually wait for 12 minutes", func(w *world) {
				w.piles(img, 7, 1)
				delay := (12 * time.Minute).Milliseconds()
				for i := range 5 {
					w.Job(img, &eventv1.JobTransitioned{JobId: fmt.Sprint("usual-", i), State: inProgress, DelayMs: &delay})
				}
				w.follows("patient", inQueue)
				w.quiet(30 * time.Minute)
			}},
			{"the state of a job is not known while polls fail, and after that is soon", func(w *world) {
				w.piles(img, 7, 1)
				w.follows("done-meanwhile", inQueue)
				w.quiet(5 * time.Minute)
				w.blinds()
				w.quiet(2 * time.Hour)
				w.changing(img, w.life(img).sample, works)
				w.quiet(time.Minute)
				w.JobIs(img, "done-meanwhile", completed)
				w.quiet(time.Hour)
			}},
			{"a job that is said to wait where nothing waits", func(w *world) {
				w.piles(img, 0, 1)
				w.follows("forgotten", inQueue)
				w.quiet(night)
			}},
			{"an endpoint whose owner lets jobs wait for 2 hours", func(w *world) {
				w.piles("vision-patient", 7, 1)
				w.Track("vision-patient", "patient")
				w.JobIs("vision-patient", "patient", inQueue)
				w.quiet(119 * time.Minute)
			}},
		},
	},
	{
		rule: "JobOverrunOrLost",
		fires: story{"a minute after a job's time limit, and when a job vanishes", func(w *world) {
			w.turns(share(10, 0))
			w.follows("hung", inProgress)
			a := w.firesAfter(11 * time.Minute)
			if want := "vision-img: 1 jobs run beyond their time limit, 0 vanished"; !strings.Contains(summary(a), want) {
				w.t.Errorf("the summary is %q, want %q in it", summary(a), want)
			}
			w.JobIs(img, "hung", completed)
			w.resolvesAfter(30 * time.Minute)
			w.follows("vanished", inQueue)
			w.stays(time.Minute)
			w.JobIs(img, "vanished", lost)
			w.firesAfter(0)
		}},
		holds: story{"for 30 minutes, while one job after the other overruns", func(w *world) {
			w.turns(share(10, 0))
			w.follows("hung", inProgress)
			w.stays(11*time.Minute - step)
			w.firesAfter(step)
			for i := range 10 {
				id := fmt.Sprint("hung-", i)
				w.follows(id, inProgress)
				w.stays(20 * time.Minute)
				w.JobIs(img, id, completed)
			}
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"30 minutes after it, also where the time limit is not known", func(w *world) {
			w.turns(share(10, 0))
			spec := ruletest.QueueSpec(5)
			spec.GetEndpoint().ExecutionTimeout = nil
			w.Change(ruletest.Endpoint(img), spec)
			w.follows("vanished", inQueue)
			w.stays(time.Minute)
			w.JobIs(img, "vanished", lost)
			w.firesAfter(0)
			w.resolvesAfter(10*time.Minute + 30*time.Minute)
		}},
		quiet: []story{
			{"jobs that take just as long as they may", func(w *world) {
				w.turns(share(10, 0))
				for i := range 20 {
					id := fmt.Sprint("long-", i)
					w.follows(id, inProgress)
					w.quiet(10*time.Minute + 45*time.Second)
					w.JobIs(img, id, completed)
				}
			}},
			{"an outage in which a followed job ends", func(w *world) {
				w.turns(share(10, 0))
				w.follows("done-meanwhile", inProgress)
				w.quiet(5 * time.Minute)
				w.blinds()
				w.quiet(15 * time.Minute)
				w.changing(img, w.life(img).sample, share(10, 0))
				w.quiet(2 * time.Minute)
				w.JobIs(img, "done-meanwhile", completed)
				w.quiet(time.Hour)
			}},
			{"an outage that outlasts RunPod's memory of a job", func(w *world) {
				w.turns(share(10, 0))
				w.follows("forgotten", inProgress)
				w.blinds()
				w.quiet(40 * time.Minute)
				w.changing(img, w.life(img).sample, share(10, 0))
				w.quiet(time.Minute)
				w.JobIs(img, "forgotten", unknown)
				w.quiet(night)
			}},
		},
	},
}

// follows registers a job and says that it is in a state.
func (w *world) follows(id string, state eventv1.JobState) { w.t.Helper(); w.follow(img, id, state) }

// follow registers a job of an endpoint and says that it is in a state.
func (w *world) follow(endpoint, id string, state eventv1.JobState) {
	w.t.Helper()
	w.Track(endpoint, id)
	w.JobIs(endpoint, id, state)
}
