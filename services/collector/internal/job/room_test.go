package job_test

import (
	"testing"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/job"
)

func TestJobsWithoutRoomAreCounted(t *testing.T) {
	b := &bench{Tracker: tracker(1), now: noon}
	b.register()
	k := func(id string) job.Key { return job.Key{Endpoint: "ep", ID: id} }
	for name, step := range map[string]func(){
		"a webhook of one that goes on": func() {
			b.Observe(k("hook"), job.Observation{Fact: &eventv1.JobTransitioned{State: running}}, noon, b.accept)
		},
		"an end that the log has no room for": func() {
			b.full = true
			b.Observe(k("end"), job.Observation{Fact: &eventv1.JobTransitioned{State: completed}}, noon, b.accept)
			b.full = false
		},
		"a registration of the past": func() {
			b.Replay("ep", &eventv1.Event{Fact: &eventv1.Event_JobRegistered{JobRegistered: &eventv1.JobRegistered{JobId: "past"}}}, noon)
		},
		"a start of the past": func() {
			b.Replay("ep", &eventv1.Event{Fact: &eventv1.Event_JobTransitioned{JobTransitioned: &eventv1.JobTransitioned{JobId: "begun", Attempt: 1, State: running}}}, noon)
		},
	} {
		if step(); b.NoRoom() != 1 || b.NoRoom() != 0 {
			t.Errorf("%s is not counted once", name)
		}
	}
	b.poll(completed)
	if n := b.NoRoom(); n != 0 {
		t.Errorf("%d jobs counted where there is room", n)
	}
}
