package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
)

// ms is a duration as the clock counts it.
func ms(d time.Duration) int64 { return d.Milliseconds() }

// passing is a partition that ticks brought time to.
func passing(speed float64, after ...time.Duration) *Partition {
	p := NewPartition(0, "log", speed)
	at := epoch
	for i, d := range append([]time.Duration{0}, after...) {
		at = at.Add(d)
		if _, err := p.Step(Message{Seq: uint64(i) + 1, Time: at, Event: tick()}, known()); err != nil {
			panic(err) // no rules, none unknown
		}
	}
	return p
}

func TestTheBusTimeHasWhatEngineTimeLeavesOut(t *testing.T) {
	const tenth = 100 * time.Millisecond
	for _, c := range []struct {
		name     string
		speed    float64
		after    []time.Duration
		now, bus time.Duration
		gaps     []window.Gap
	}{
		{"as long as messages come", 1, []time.Duration{time.Minute, 90 * time.Second}, 150 * time.Second, 150 * time.Second, nil},
		{
			"a night", 1,
			[]time.Duration{time.Minute, 8 * time.Hour, time.Minute},
			210 * time.Second, 8*time.Hour + 2*time.Minute,
			[]window.Gap{{From: ms(time.Minute), To: ms(8*time.Hour - 30*time.Second)}},
		},
		{
			"two of them", 1,
			[]time.Duration{time.Minute, 8 * time.Hour, 91 * time.Second},
			240 * time.Second, 8*time.Hour + 151*time.Second,
			[]window.Gap{{From: ms(time.Minute), To: ms(8*time.Hour - 30*time.Second)}, {From: ms(8*time.Hour + time.Minute), To: ms(8*time.Hour + 61*time.Second)}},
		},
		{"a step back", 1, []time.Duration{time.Minute, -time.Hour, time.Minute}, 2 * time.Minute, 2 * time.Minute, nil},
		{
			"no more than any window can tell apart", 1,
			[]time.Duration{time.Minute, 365 * 24 * time.Hour},
			150 * time.Second, time.Minute + longestGap,
			[]window.Gap{{From: ms(time.Minute), To: ms(longestGap - 30*time.Second)}},
		},
		{
			"a fast demo", 60,
			[]time.Duration{time.Second, 2 * time.Second},
			150 * time.Second, 3 * time.Minute,
			[]window.Gap{{From: ms(time.Minute), To: ms(90 * time.Second)}},
		},
		{"parts of a millisecond count as nothing", 1, []time.Duration{90*time.Second + tenth/1000}, 90 * time.Second, 90 * time.Second, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := passing(c.speed, c.after...)
			if now, bus := p.nowMs(), p.clock.bus(); now != ms(c.now) || bus != ms(c.bus) {
				t.Errorf("engine time %d ms, the bus's %d ms; want %d and %d", now, bus, ms(c.now), ms(c.bus))
			}
			if diff := cmp.Diff(c.gaps, p.clock.gaps); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestInstantsOfOneTimeAreFoundInTheOther(t *testing.T) {
	// Messages at 0, 1 min, 8 h 1 min, 8 h 2 min, 9 h 2 min and 9 h 3 min by the
	// bus: at 0, 60, 150, 210, 300 and 360 s by the engine.
	c := passing(1, time.Minute, 8*time.Hour, time.Minute, time.Hour, time.Minute).clock
	for bus, engine := range map[time.Duration]time.Duration{
		0:                            0,
		time.Minute:                  time.Minute,
		4 * time.Hour:                time.Minute,
		8*time.Hour - 30*time.Second: time.Minute,
		8 * time.Hour:                90 * time.Second,
		8*time.Hour + time.Minute:    150 * time.Second,
		8*time.Hour + 2*time.Minute:  210 * time.Second,
		8*time.Hour + 30*time.Minute: 210 * time.Second,
		9*time.Hour + 2*time.Minute:  300 * time.Second,
		9*time.Hour + 3*time.Minute:  360 * time.Second,
	} {
		if got := c.engineAt(ms(bus)); got != ms(engine) {
			t.Errorf("%v of the bus's time is %v ms of engine time, want %v", bus, got, engine)
		}
	}
	for width, from := range map[time.Duration]time.Duration{
		time.Minute:       9*time.Hour + 2*time.Minute,
		2 * time.Minute:   9*time.Hour + time.Minute,
		150 * time.Second: 9*time.Hour + 30*time.Second,
		3 * time.Minute:   8*time.Hour + 90*time.Second,
		5 * time.Minute:   8*time.Hour - 30*time.Second,
		301 * time.Second: 59 * time.Second,
		6 * time.Minute:   0,
	} {
		if got := c.reach(c.bus(), ms(width)); got != ms(from) {
			t.Errorf("%v of engine time reach back to %d ms, want %v", width, got, from)
		}
	}
}

func TestGapsAreForgottenWhenNoWindowReachesThem(t *testing.T) {
	var long []time.Duration
	for range 3000 {
		long = append(long, time.Hour)
	}
	if n := len(passing(1, long...).clock.gaps); n != int(expr.MaxWindow/maxStep)-1 {
		t.Errorf("%d gaps are kept, want as many as lie less than 24 h of engine time back, %d", n, expr.MaxWindow/maxStep-1)
	}
}

func TestAStateOfTheFirstFormatIsReadAsOneWithoutGaps(t *testing.T) {
	s := newStory(t, compile(t, queueRule))
	s.queue(time.Minute, "x", 1)
	data, err := s.p.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var snap statev1.Snapshot
	decode(t, data, &snap)
	var state statev1.TargetState
	decode(t, snap.GetTargets()[0].GetValue(), &state)
	state.SampledBusMs, snap.Head.Format = nil, 1
	if snap.Targets[0].Value, err = proto.Marshal(&state); err != nil {
		t.Fatal(err)
	}
	if data, err = proto.Marshal(&snap); err != nil {
		t.Fatal(err)
	}
	p, err := Restore(data, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.targets["a-endpoint-x"]; got.holds() != ms(time.Minute+45*time.Second) {
		t.Errorf("the sample holds until %d ms", got.holds())
	}
	var written statev1.Head
	if decode(t, p.Delta().Head, &written); written.GetFormat() != stateFormat {
		t.Errorf("it is written in format %d, want %d", written.GetFormat(), stateFormat)
	}
}

func TestFactsThatWereHeldCountWhenTheyHappened(t *testing.T) {
	s := newStory(t, compile(t, "groups: [{name: g, rules: [{alert: A, on: job, expr: \"increase(job.failed, '10m') >= 1\"}]}]"))
	s.queue(time.Minute, "x", 0)
	s.send(20*time.Minute, tick()) // the bus was away
	for held, want := range map[time.Duration]int{15 * time.Minute: 0, 8 * time.Minute: 1} {
		r := s.send(time.Second, &eventv1.Event{
			Target: endpoint("x"), Held: durationpb.New(held),
			Fact: &eventv1.Event_JobTransitioned{JobTransitioned: failure(held.String(), eventv1.JobErrorCategory(1+held/time.Minute%5), "f")},
		})
		if len(r.Transitions) != want {
			t.Errorf("a failure of %v ago makes %v, want %d", held, told(r), want)
		}
	}
}

func TestAJobThatWasHeldThroughAGapIsNoOlderThanOneThatWasNot(t *testing.T) {
	s := newStory(t, compile(t, "groups: [{name: g, rules: [{alert: Stuck, on: endpoint, expr: tracked.oldest_queued_s > 120}]}]"))
	s.queue(time.Minute, "x", 1)
	s.send(20*time.Minute, tick())
	s.want(s.send(time.Second, &eventv1.Event{
		Target: endpoint("x"), Held: durationpb.New(15 * time.Minute),
		Fact: &eventv1.Event_JobTransitioned{JobTransitioned: &eventv1.JobTransitioned{JobId: "j", State: inQueue}},
	}))
	s.want(s.queue(28*time.Second, "x", 1))
	s.want(s.queue(2*time.Second, "x", 1), "firing Stuck")
}

func TestEndedJobsAreForgottenAsTheLogForgets(t *testing.T) {
	s := newStory(t, compile(t, jobRules))
	s.job(time.Second, "x", &eventv1.JobTransitioned{JobId: "old", State: failed})
	s.job(time.Second, "x", &eventv1.JobTransitioned{JobId: "open", State: inProgress})
	s.send(30*time.Minute, tick())
	s.job(time.Second, "x", &eventv1.JobTransitioned{JobId: "young", State: failed})
	s.send(11*time.Minute, tick())
	s.queue(time.Second, "x", 0)
	left := sortedKeys(s.p.targets["a-endpoint-x"].jobs.byID)
	if diff := cmp.Diff([]string{"open", "young"}, left); diff != "" {
		t.Errorf("known after 41 minutes, of which engine time saw three (-want +got):\n%s", diff)
	}
	s.send(25*time.Hour, tick())
	s.queue(time.Second, "x", 0)
	if n := len(s.p.targets["a-endpoint-x"].jobs.byID); n != 0 {
		t.Errorf("%d jobs are known after a day", n)
	}
}

func TestTheCourseThatAnAlertShowsIsAsLongAsItWas(t *testing.T) {
	s := newStory(t, compile(t, "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: \"jobs.in_queue > 5 && increase(jobs.failed, '24h') >= 0\"}]}]"))
	poll := func(after time.Duration, n int64) StepResult {
		return s.send(after, sampled(endpoint("x"), s.at.Add(after).UnixMilli(), 15*time.Second, &eventv1.JobCounts{InQueue: &n, Failed: &n}, nil))
	}
	poll(time.Minute, 1)
	r := poll(8*time.Hour, 9)
	s.want(r, "firing A")
	var got []string
	for _, c := range r.Transitions[0].GetAlert().GetEvidence().GetSeries() {
		for _, p := range c.GetPoints() {
			got = append(got, fmt.Sprint(c.GetField(), " ", p.GetSecondsAgo(), " ", p.Value == nil))
		}
	}
	want := []string{
		"jobs.in_queue 28800 false", "jobs.in_queue 28755 true", "jobs.in_queue 0 false",
		"jobs.failed 28800 false", "jobs.failed 28755 true", "jobs.failed 0 false",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
