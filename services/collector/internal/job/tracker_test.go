package job_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/job"
)

const (
	queued    = eventv1.JobState_JOB_STATE_IN_QUEUE
	running   = eventv1.JobState_JOB_STATE_IN_PROGRESS
	completed = eventv1.JobState_JOB_STATE_COMPLETED
	failed    = eventv1.JobState_JOB_STATE_FAILED
	cancelled = eventv1.JobState_JOB_STATE_CANCELLED
)

var (
	noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	j1   = job.Key{Endpoint: "ep", ID: "j1"}
)

func tracker(open int) *job.Tracker {
	return job.NewTracker(job.Options{MaxOpen: open, Fast: 2 * time.Second, Slow: 15 * time.Second})
}

// bench drives a tracker and keeps what it tells.
type bench struct {
	*job.Tracker
	now  time.Time
	told []string
	full bool // nothing is accepted
}

func (b *bench) accept(t job.Transition) bool {
	if b.full {
		return false
	}
	b.told = append(b.told, fmt.Sprintf("%s %d %s", t.ID, t.Fact.GetAttempt(), t.Fact.GetState().String()[len("JOB_STATE_"):]))
	return true
}

func (b *bench) poll(state eventv1.JobState) {
	b.now = b.now.Add(time.Second)
	b.Observe(j1, job.Observation{Fact: &eventv1.JobTransitioned{State: state}, Asked: b.now}, b.now, b.accept)
}

// stale is the answer to a question of two seconds ago.
func (b *bench) stale(state eventv1.JobState) {
	b.now = b.now.Add(time.Second)
	b.Observe(j1, job.Observation{Fact: &eventv1.JobTransitioned{State: state}, Asked: b.now.Add(-2 * time.Second)}, b.now, b.accept)
}

func (b *bench) hook(state eventv1.JobState) {
	b.now = b.now.Add(time.Second)
	b.Observe(j1, job.Observation{Fact: &eventv1.JobTransitioned{State: state}, Asked: b.now, Latest: true}, b.now, b.accept)
}

func (b *bench) register() { _, _ = b.Register(j1, b.now) }

// forgotten is a 404 after some time in which nobody asked.
func (b *bench) forgotten(after time.Duration) {
	b.now = b.now.Add(after)
	b.Missing(j1, true, b.now, b.accept)
}

func TestWhatIsToldOfAJob(t *testing.T) {
	for name, test := range map[string]struct {
		steps func(*bench)
		want  []string
	}{
		"each state once": {func(b *bench) {
			for _, s := range []eventv1.JobState{queued, queued, running, running, completed, completed} {
				b.poll(s)
			}
		}, []string{"j1 1 IN_QUEUE", "j1 1 IN_PROGRESS", "j1 1 COMPLETED"}},
		"only what was seen": {
			func(b *bench) { b.poll(queued); b.poll(completed) },
			[]string{"j1 1 IN_QUEUE", "j1 1 COMPLETED"},
		},
		"nothing of a way back": {
			func(b *bench) { b.poll(running); b.poll(queued); b.poll(completed) },
			[]string{"j1 1 IN_PROGRESS", "j1 1 COMPLETED"},
		},
		"one end of two": {
			func(b *bench) { b.poll(failed); b.hook(completed); b.poll(cancelled) },
			[]string{"j1 1 FAILED"},
		},
		"a webhook and a poll are one": {
			func(b *bench) { b.hook(completed); b.poll(completed); b.hook(completed) },
			[]string{"j1 1 COMPLETED"},
		},
		"a new attempt when it is queued again": {func(b *bench) {
			b.poll(failed)
			b.poll(queued)
			b.poll(running)
			b.poll(completed)
		}, []string{"j1 1 FAILED", "j1 2 IN_QUEUE", "j1 2 IN_PROGRESS", "j1 2 COMPLETED"}},
		"a new attempt whose queue was passed unseen": {
			func(b *bench) { b.poll(failed); b.poll(running) },
			[]string{"j1 1 FAILED", "j1 2 IN_PROGRESS"},
		},
		"a webhook means the latest attempt": {
			func(b *bench) { b.poll(failed); b.poll(queued); b.hook(failed) },
			[]string{"j1 1 FAILED", "j1 2 IN_QUEUE", "j1 2 FAILED"},
		},
		"an answer on its way when the webhook came begins nothing": {func(b *bench) {
			b.poll(running)
			b.hook(completed)
			b.stale(queued)
			b.stale(running)
		}, []string{"j1 1 IN_PROGRESS", "j1 1 COMPLETED"}},
		"a webhook that says queued begins nothing": {
			func(b *bench) { b.hook(completed); b.hook(queued) },
			[]string{"j1 1 COMPLETED"},
		},
		"what found no room is told by the next poll": {func(b *bench) {
			b.full = true
			b.poll(queued)
			b.hook(completed)
			b.full = false
			b.poll(completed)
		}, []string{"j1 1 COMPLETED"}},
		"nothing after a loss": {func(b *bench) {
			b.now = b.now.Add(11 * time.Second)
			b.Missing(j1, true, b.now, b.accept)
			b.Missing(j1, true, b.now, b.accept)
			b.hook(completed)
		}, []string{"j1 1 LOST"}},
		"no loss in the first 10 s": {func(b *bench) {
			b.now = b.now.Add(9 * time.Second)
			b.Missing(j1, true, b.now, b.accept)
		}, nil},
		"no loss while RunPod does not answer": {func(b *bench) {
			b.now = b.now.Add(time.Hour)
			b.Missing(j1, false, b.now, b.accept)
		}, nil},
		"a loss after hours in which RunPod knew it": {func(b *bench) {
			for range 20 {
				b.now = b.now.Add(20 * time.Minute)
				b.poll(running)
			}
			b.forgotten(20 * time.Minute)
		}, []string{"j1 1 IN_PROGRESS", "j1 1 LOST"}},
		"no loss where it may have ended and been forgotten before anybody asked": {func(b *bench) {
			b.poll(running)
			b.forgotten(25 * time.Minute)
			b.forgotten(time.Second)
			b.hook(completed)
		}, []string{"j1 1 IN_PROGRESS", "j1 1 OUTCOME_UNKNOWN"}},
		"nor in a night in which nobody asked": {
			func(b *bench) { b.forgotten(8 * time.Hour) },
			[]string{"j1 1 OUTCOME_UNKNOWN"},
		},
		"another attempt after an outcome that is unknown": {func(b *bench) {
			b.forgotten(8 * time.Hour)
			b.register()
			b.poll(queued)
			b.forgotten(time.Minute)
		}, []string{"j1 1 OUTCOME_UNKNOWN", "j1 2 IN_QUEUE", "j1 2 LOST"}},
		"no loss after an end": {func(b *bench) {
			b.poll(completed)
			b.register()
			b.now = b.now.Add(time.Minute)
			b.Missing(j1, true, b.now, b.accept)
		}, []string{"j1 1 COMPLETED"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bench{Tracker: tracker(10), now: noon}
			b.register()
			test.steps(b)
			if diff := cmp.Diff(test.want, b.told); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
		})
	}
}

func TestALossIsOneOnlyWithinWhatRunPodKeeps(t *testing.T) {
	for _, test := range []struct {
		id     string
		unseen time.Duration
		want   string
	}{
		{"a", 25*time.Minute - 1, "LOST"},
		{"a", 25 * time.Minute, "OUTCOME_UNKNOWN"},
		{"sync-a", 50*time.Second - 1, "LOST"},
		{"sync-a", 50 * time.Second, "OUTCOME_UNKNOWN"},
	} {
		key := job.Key{Endpoint: "ep", ID: test.id}
		b := &bench{Tracker: tracker(1), now: noon.Add(test.unseen)}
		if _, err := b.Register(key, noon); err != nil {
			t.Fatal(err)
		}
		b.Missing(key, true, b.now, b.accept)
		if diff := cmp.Diff([]string{test.id + " 1 " + test.want}, b.told); diff != "" {
			t.Errorf("%s, not seen for %v (-want +got):\n%s", test.id, test.unseen, diff)
		}
	}
}

func TestARestartTellsNoLossOfWhatItDidNotSee(t *testing.T) {
	entered := &eventv1.Event{Fact: &eventv1.Event_JobTransitioned{
		JobTransitioned: &eventv1.JobTransitioned{JobId: "j1", Attempt: 1, State: running},
	}}
	for name, test := range map[string]struct {
		away time.Duration
		want []string
	}{
		"a short one": {time.Minute, []string{"j1 1 LOST"}},
		"a long one":  {8 * time.Hour, []string{"j1 1 OUTCOME_UNKNOWN"}},
	} {
		b := &bench{Tracker: tracker(10), now: noon}
		b.Replay("ep", entered, noon)
		b.forgotten(test.away)
		if diff := cmp.Diff(test.want, b.told); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	b := &bench{Tracker: tracker(10), now: noon.Add(8 * time.Hour)}
	b.Replay("ep", entered, noon)
	b.poll(running) // it is still there
	b.forgotten(time.Minute)
	if diff := cmp.Diff([]string{"j1 1 LOST"}, b.told); diff != "" {
		t.Errorf("a job that outlived the night (-want +got):\n%s", diff)
	}
}

func TestAnEndedJobIsNotPolled(t *testing.T) {
	b := &bench{Tracker: tracker(10), now: noon}
	b.register()
	b.poll(completed)
	if _, open := b.Next(j1, b.now); open {
		t.Error("an ended job is polled")
	}
	b.register() // its owner may have sent it to be tried again
	if _, open := b.Next(j1, b.now); !open {
		t.Error("a job that was registered again is not looked at")
	}
	b.now = b.now.Add(2 * time.Minute)
	b.poll(completed)
	if _, open := b.Next(j1, b.now); open {
		t.Error("a job that was not tried again is polled for ever")
	}
	if diff := cmp.Diff([]string{"j1 1 COMPLETED"}, b.told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestThePaceOfPolls(t *testing.T) {
	b := &bench{Tracker: tracker(10), now: noon}
	b.register()
	for _, test := range []struct{ age, want time.Duration }{
		{0, 2 * time.Second},
		{59 * time.Second, 2 * time.Second},
		{time.Minute, 15 * time.Second},
		{7*24*time.Hour - time.Second, 15 * time.Second},
	} {
		now := noon.Add(test.age)
		at, open := b.Next(j1, now)
		if !open || at.Sub(now) != test.want {
			t.Errorf("at the age of %v it is polled after %v (%v), want %v", test.age, at.Sub(now), open, test.want)
		}
	}
	if _, open := b.Next(j1, noon.Add(7*24*time.Hour)); open {
		t.Error("a job is followed for more than a week")
	}
	if open, _ := b.Len(); open != 0 {
		t.Errorf("%d jobs are open after a week", open)
	}
}

func TestJobsAreBounded(t *testing.T) {
	b := &bench{Tracker: tracker(2), now: noon}
	for i := range 2 {
		if fresh, err := b.Register(job.Key{ID: fmt.Sprint(i)}, noon); !fresh || err != nil {
			t.Fatalf("job %d: %v, %v", i, fresh, err)
		}
	}
	if fresh, err := b.Register(job.Key{ID: "0"}, noon); fresh || err != nil {
		t.Errorf("a job that is followed already: %v, %v", fresh, err)
	}
	if _, err := b.Register(job.Key{ID: "2"}, noon); !errors.Is(err, job.ErrFull) {
		t.Errorf("the third of two is %v", err)
	}
	for i := range 100 { // webhooks of jobs that nobody registered
		k := job.Key{ID: fmt.Sprint("hook", i)}
		b.Observe(k, job.Observation{Fact: &eventv1.JobTransitioned{State: completed}}, noon, b.accept)
	}
	open, ended := b.Len()
	if len(b.told) != 100 || open != 2 || ended > 3 {
		t.Errorf("told %d ends, %d open, %d remembered", len(b.told), open, ended)
	}
	b.Release(job.Key{ID: "0"})
	if _, err := b.Register(job.Key{ID: "2"}, noon); err != nil {
		t.Errorf("no room after a release: %v", err)
	}
}

func TestEndsAreForgotten(t *testing.T) {
	b := &bench{Tracker: tracker(10), now: noon}
	b.register()
	b.poll(completed)
	b.Forget(noon.Add(39 * time.Minute))
	if _, ended := b.Len(); ended != 1 {
		t.Error("an end is forgotten before 40 minutes")
	}
	b.Forget(noon.Add(41 * time.Minute))
	if open, ended := b.Len(); open+ended != 0 {
		t.Errorf("%d open, %d ended after 41 minutes", open, ended)
	}
}

func TestAnEndpointTakesItsJobsAlong(t *testing.T) {
	b := &bench{Tracker: tracker(10), now: noon}
	b.register()
	_, _ = b.Register(job.Key{Endpoint: "other", ID: "j2"}, noon)
	if n := b.DropEndpoint("ep"); n != 1 {
		t.Errorf("%d jobs dropped", n)
	}
	if diff := cmp.Diff([]job.Key{{Endpoint: "other", ID: "j2"}}, b.Open()); diff != "" {
		t.Errorf("open (-want +got):\n%s", diff)
	}
}

func TestARestartKnowsWhatWasTold(t *testing.T) {
	registered := func(id string) *eventv1.Event {
		return &eventv1.Event{Fact: &eventv1.Event_JobRegistered{JobRegistered: &eventv1.JobRegistered{JobId: id}}}
	}
	entered := func(id string, attempt int32, s eventv1.JobState) *eventv1.Event {
		return &eventv1.Event{Fact: &eventv1.Event_JobTransitioned{
			JobTransitioned: &eventv1.JobTransitioned{JobId: id, Attempt: attempt, State: s},
		}}
	}
	b := &bench{Tracker: tracker(10), now: noon}
	for _, e := range []*eventv1.Event{
		registered("j1"), entered("j1", 1, queued), entered("j1", 1, failed), entered("j1", 2, running),
		entered("j1", 1, failed), entered("j1", 2, queued), // late ones
		registered("open"), entered("ended", 1, completed),
	} {
		b.Replay("ep", e, noon)
	}
	if open, ended := b.Len(); open != 2 || ended != 1 {
		t.Errorf("%d open and %d ended, want 2 and 1", open, ended)
	}
	if oldest, ok := b.Oldest(); !ok || !oldest.Equal(noon) {
		t.Errorf("the oldest began %v, %v", oldest, ok)
	}
	b.poll(running)
	b.poll(completed)
	b.Observe(job.Key{Endpoint: "ep", ID: "ended"}, job.Observation{Fact: &eventv1.JobTransitioned{State: completed}, Latest: true}, b.now, b.accept)
	if diff := cmp.Diff([]string{"j1 2 COMPLETED"}, b.told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestARestartKnowsThatAJobIsLookedAtAgain(t *testing.T) {
	b := &bench{Tracker: tracker(10), now: noon.Add(time.Minute)}
	for at, e := range []*eventv1.Event{
		{Fact: &eventv1.Event_JobRegistered{JobRegistered: &eventv1.JobRegistered{JobId: "j1"}}},
		{Fact: &eventv1.Event_JobTransitioned{JobTransitioned: &eventv1.JobTransitioned{JobId: "j1", Attempt: 1, State: failed}}},
		{Fact: &eventv1.Event_JobRegistered{JobRegistered: &eventv1.JobRegistered{JobId: "j1"}}},
	} {
		b.Replay("ep", e, noon.Add(time.Duration(at)*time.Second))
	}
	if _, open := b.Next(j1, b.now); !open {
		t.Error("a job that was registered again is not looked at after a restart")
	}
	b.poll(queued)
	b.poll(completed)
	if diff := cmp.Diff([]string{"j1 2 IN_QUEUE", "j1 2 COMPLETED"}, b.told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// FuzzTracker checks that no order of observations tells a state twice or goes
// back within an attempt.
func FuzzTracker(f *testing.F) {
	f.Add([]byte{1, 2, 3, 1, 2, 4})
	f.Add([]byte{0x13, 0x21, 0x11, 0x02, 0x31})
	f.Fuzz(func(t *testing.T, steps []byte) {
		b := &bench{Tracker: tracker(3), now: noon}
		rank := map[eventv1.JobState]int{queued: 1, running: 2}
		attempt, last := int32(1), 0
		check := func(tr job.Transition) bool {
			r, ok := rank[tr.Fact.GetState()]
			if !ok {
				r = 3
			}
			if tr.Fact.GetAttempt() == attempt && r <= last || tr.Fact.GetAttempt() < attempt || tr.Fact.GetAttempt() > attempt+1 {
				t.Fatalf("attempt %d, rank %d after attempt %d, rank %d", tr.Fact.GetAttempt(), r, attempt, last)
			}
			attempt, last = tr.Fact.GetAttempt(), r
			return true
		}
		for _, s := range steps[:min(len(steps), 2000)] { // a second each: less than is remembered
			b.now = b.now.Add(time.Second)
			o := job.Observation{
				Fact:   &eventv1.JobTransitioned{State: eventv1.JobState(s%6 + 1)},
				Asked:  b.now.Add(-time.Duration(s>>4&3) * time.Second),
				Latest: s>>6&1 == 1,
			}
			switch s >> 7 {
			case 1:
				b.register()
				b.Missing(j1, true, b.now, check)
			default:
				b.Observe(j1, o, b.now, check)
			}
			if open, ended := b.Len(); open+ended > 1 {
				t.Fatalf("one job is %d open and %d ended", open, ended)
			}
		}
	})
}
