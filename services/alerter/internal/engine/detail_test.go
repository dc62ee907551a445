package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
)

const unusual = `
groups:
  - name: g
    rules:
      - alert: Unusual
        on: endpoint
        expr: min(jobs.in_queue, '30m') > 1.5 * baseline(jobs.in_queue, '7d') + 3 * baseline_spread(jobs.in_queue, '7d') + 10
        for: 10m # where an hour begins that is usually another
      - alert: FewJobs
        on: endpoint
        expr: increase(jobs.completed, '1h') < 0.5 * baseline(jobs.completed, '7d')
`

// week plays days of an endpoint whose queue is long at noon and whose jobs are done
// at night, in polls of five minutes.
func (s *story) week(days int, queue func(day, hour int) int64, completed func(day, hour int) int64) (lines []string) {
	done := int64(0)
	for n := range days * 24 * 12 {
		day, hour := n/(24*12), n/12%24
		done += completed(day, hour)
		waiting, count := queue(day, hour), done
		slot := s.at.Add(5 * time.Minute).UnixMilli()
		note := func(r StepResult) {
			for _, line := range told(r) {
				lines = append(lines, fmt.Sprint("day ", day, " hour ", hour, ": ", line))
			}
		}
		for range 4 { // time itself moves by 90 s at most
			note(s.send(75*time.Second, tick()))
		}
		note(s.send(0, sampled(endpoint("x"), slot, 5*time.Minute, &eventv1.JobCounts{InQueue: &waiting, Completed: &count}, nil)))
	}
	return lines
}

func noon(_, hour int) int64 {
	if hour >= 11 && hour <= 13 {
		return 200
	}
	return 3
}

func TestWhatIsUsualAtNoonIsNotTold(t *testing.T) {
	odd := func(day, hour int) int64 {
		if day == 4 && hour == 19 {
			return 150 // fewer than at noon, and not usual in the evening
		}
		return noon(day, hour)
	}
	lines := newStory(t, compile(t, unusual)).week(6, odd, func(int, int) int64 { return 2 })
	want := []string{"day 4 hour 19: firing Unusual", "day 4 hour 20: resolved Unusual"}
	if fmt.Sprint(lines) != fmt.Sprint(want) {
		t.Errorf("told %v, want %v", lines, want)
	}
}

func TestFewerJobsThanUsualAreTold(t *testing.T) {
	jobs := func(day, hour int) int64 {
		switch {
		case hour < 12:
			return 0
		case day == 5 && hour >= 15:
			return 1
		default:
			return 8
		}
	}
	lines := newStory(t, compile(t, unusual)).week(6, func(int, int) int64 { return 3 }, jobs)
	// Of 96 in an hour less than 48 are left when half of the hour had one a poll. At
	// noon of every day the hour before had none.
	want := []string{"day 5 hour 15: firing FewJobs"}
	got := []string{}
	for _, line := range lines {
		if line[:13] == "day 5 hour 15" {
			got = append(got, line)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("told %v, want %v (all: %v)", got, want, lines)
	}
}

// TestHoursSurviveARestart stores and loads the state every day.
func TestHoursSurviveARestart(t *testing.T) {
	program := compile(t, unusual)
	whole, cut := newStory(t, program), newStory(t, program)
	whole.week(5, noon, func(int, int) int64 { return 2 })
	for range 5 {
		before := *cut
		cut.week(1, func(_, hour int) int64 { return noon(0, hour) }, func(int, int) int64 { return 2 })
		snapshot, err := cut.p.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if cut.p, err = Restore(snapshot, 1); err != nil {
			t.Fatal(err)
		}
		if cut.seq == before.seq {
			t.Fatal("nothing was played")
		}
	}
	key := "hourly(jobs.in_queue)"
	series := func(s *story) window.State {
		s.send(time.Second, tick()) // a loaded state has its program from the first message on
		target := s.p.targets["a-endpoint-x"]
		for i, r := range s.p.recordedOf(target) {
			if r.key == key {
				return target.series[i].State()
			}
		}
		t.Fatalf("%s is not recorded", key)
		return window.State{}
	}
	a, b := series(whole), series(cut)
	if len(a.Steps) < 10 || fmt.Sprint(a.Steps) != fmt.Sprint(b.Steps) {
		t.Errorf("the hours after restarts are\n%v\nwithout\n%v", b.Steps, a.Steps)
	}
}

// TestALongWindowOverABusyCounterIsWhole asks for six hours of a counter that has
// another value in every poll of five seconds: 4,320 steps.
func TestALongWindowOverABusyCounterIsWhole(t *testing.T) {
	s := newStory(t, compile(t, `
groups:
  - name: g
    rules:
      - {alert: Many, on: endpoint, expr: "increase(jobs.completed, '6h') >= 0"}
`))
	done := int64(0)
	for range int(9 * time.Hour / (5 * time.Second)) {
		done++
		e := sampled(endpoint("x"), s.at.UnixMilli()+5_000, 5*time.Second, &eventv1.JobCounts{Completed: &done}, nil)
		if r := s.send(5*time.Second, e); len(r.Problems) > 0 {
			t.Fatalf("problems: %v", r.Problems)
		}
	}
	target := s.p.targets["a-endpoint-x"]
	r := s.p.recordedOf(target)
	for i := range r {
		if r[i].detail != coarse {
			continue
		}
		rise, ok := target.series[i].Increase(s.p.clock.bus(), (6 * time.Hour).Milliseconds())
		if most := 4320 + coarseGrain.Seconds()/5; !ok || rise.Least < 4320 || rise.Least > most {
			t.Errorf("it rose by %+v, %v; want 4320 to %v", rise, ok, most)
		}
		if n := len(target.series[i].State().Steps); n > 60 {
			t.Errorf("%d steps are kept of 6 h", n)
		}
		return
	}
	t.Error("nothing coarse is recorded")
}

// TestACoarseCourseBeginsWithTheExactOne brings a rule with a long window into force
// when a shorter one was there.
func TestACoarseCourseBeginsWithTheExactOne(t *testing.T) {
	a := compile(t, `groups: [{name: g, rules: [{alert: A, on: endpoint, expr: "increase(jobs.completed, '2h') > 1000"}]}]`)
	b := compile(t, `groups: [{name: g, rules: [{alert: B, on: endpoint, expr: "increase(jobs.completed, '3h') >= 100"}]}]`)
	s := newStory(t, a, b)
	for done := range int64(110) {
		s.send(15*time.Second, sampled(endpoint("x"), s.at.UnixMilli()+15_000, 15*time.Second, &eventv1.JobCounts{Completed: &done}, nil))
	}
	s.want(s.send(0, activated(b.Hash())), "firing B")
}

// TestHoursAreThoseOfTheCalendar plays days once from their beginning and once from
// the middle of an hour of the first, as a rebuild or a backtest does.
func TestHoursAreThoseOfTheCalendar(t *testing.T) {
	program := compile(t, unusual)
	whole, late := newStory(t, program), newStory(t, program)
	whole.p, late.p = NewPartition(3, "log", 1), NewPartition(3, "log", 1)
	late.p.Begin(program)
	var kept []window.State
	begun := func(s *story, skip int) {
		seq, at := uint64(0), epoch
		for n := range 3 * 24 * 60 {
			at = at.Add(time.Minute)
			seq++
			if n < skip {
				continue
			}
			waiting, done := int64(n*n%37), int64(n)
			e := sampled(endpoint("x"), at.UnixMilli(), time.Minute, &eventv1.JobCounts{InQueue: &waiting, Completed: &done}, nil)
			if _, err := s.p.Step(Message{Seq: seq, Time: at, Event: e}, s.programs); err != nil {
				t.Fatal(err)
			}
		}
		target := s.p.targets["a-endpoint-x"]
		for i, r := range s.p.recordedOf(target) {
			if r.key == "hourly(jobs.in_queue)" {
				kept = append(kept, target.series[i].State())
			}
		}
	}
	whole.p.Begin(program)
	begun(whole, 0)
	begun(late, 95) // from 13:36 on: 14:00 is the first whole hour
	if len(kept) != 2 {
		t.Fatal("the hours are not kept")
	}
	from := epoch.Add(2 * time.Hour).UnixMilli()
	after := func(st window.State) (steps []window.Step) {
		for _, step := range st.Steps {
			if step.Start >= from {
				steps = append(steps, step)
			}
		}
		return steps
	}
	a, b := after(kept[0]), after(kept[1])
	if len(a) < 60 || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("the hours of a fold that began later are\n%v\nwant\n%v", b, a)
	}
}

// TestAWeekendWithoutTheBusMovesNoHours stops everything for 62 h, of which the bus's
// time leaves out 14, and asks for what is usual at noon afterwards.
func TestAWeekendWithoutTheBusMovesNoHours(t *testing.T) {
	s := newStory(t, compile(t, strings.Split(unusual, "      - alert: FewJobs")[0]))
	if lines := s.week(4, noon, func(int, int) int64 { return 2 }); len(lines) > 0 {
		t.Fatalf("told %v", lines)
	}
	s.at = s.at.Add(62 * time.Hour) // from one hour of the day to 14 hours later
	later := func(day, hour int) int64 { return noon(day, (hour+14)%24) }
	if lines := s.week(1, later, func(int, int) int64 { return 2 }); len(lines) > 0 {
		t.Errorf("told %v", lines)
	}
}
