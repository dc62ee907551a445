package plan

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is what breaks.
type Kind string

// The kinds of faults.
const (
	// Kill ends a process as a power cut would; it is started again. Redis
	// thereby loses all it has.
	Kill Kind = "kill"
	// Pause stops a process in the middle of what it does; it goes on.
	Pause Kind = "pause"
	// Flush makes Redis forget everything.
	Flush Kind = "flush"
	// Cut closes the connections of a link and refuses new ones.
	Cut Kind = "cut"
	// Mute lets a link's requests through and swallows the answers, then closes
	// its connections.
	Mute Kind = "mute"
	// Flap closes the connections of a link again and again, in the middle of
	// whatever they carry.
	Flap Kind = "flap"
	// Stall lets nothing through a link, then all of it.
	Stall Kind = "stall"
	// Fail makes a receiver, or RunPod, answer 500.
	Fail Kind = "fail"
	// Throttle makes a receiver answer 429 with Retry-After.
	Throttle Kind = "throttle"
	// Hang makes a receiver, or RunPod, take requests and not answer.
	Hang Kind = "hang"
	// Drop makes a receiver take in what it is sent and close the connection.
	Drop Kind = "drop"
	// Late makes a receiver take in what it is sent and answer 200 so late that the
	// sender is about to give up.
	Late Kind = "late"
	// Clock moves the wall clock of a process by the fault's Offset, and then back.
	Clock Kind = "clock"
	// Wipe kills NATS and starts it again without its data: all of it, or the
	// stream called Part.
	Wipe Kind = "wipe"
	// Rollback copies NATS's data and later kills NATS and starts it with the copy:
	// of all of its data, or of the stream called Part.
	Rollback Kind = "rollback"
)

// Fault is that something breaks, for a while.
type Fault struct {
	Kind Kind
	Who  string
	At   time.Duration
	For  time.Duration
	// Offset is by how much a clock moves.
	Offset time.Duration
	// Part is the stream whose data is meant; empty means all.
	Part string
}

// String tells the fault in a line.
func (f Fault) String() string {
	text := fmt.Sprintf("%6.2fs %-8s %s for %v", f.At.Seconds(), f.Kind, f.Who, f.For.Round(time.Millisecond))
	if f.Offset != 0 {
		text += fmt.Sprintf(" by %v", f.Offset.Round(time.Second))
	}
	if f.Part != "" {
		text += " of " + f.Part
	}
	return text
}

// End is when it is over.
func (f Fault) End() time.Duration { return f.At + f.For }

// Step is what is done at an instant: a fault begins or ends.
type Step struct {
	At time.Duration
	Fault
	Ends bool
}

// Steps lists what is to be done, by time.
func (p Plan) Steps() []Step {
	var all []Step
	for _, f := range p.Faults {
		all = append(all, Step{f.At, f, false}, Step{f.End(), f, true})
		for at := f.At + flapEvery; f.Kind == Flap && at < f.End(); at += flapEvery {
			all = append(all, Step{at, f, false})
		}
	}
	slices.SortStableFunc(all, func(a, b Step) int { return cmp.Compare(a.At, b.At) })
	return all
}

// choice is a kind of fault on some of those that it can befall.
type choice struct {
	weight int
	kind   Kind
	who    []string
	// least and most bound how long it lasts.
	least, most time.Duration
}

const ms = time.Millisecond

// flapEvery is prime, so that flaps and what happens at round intervals drift.
const flapEvery = 83 * ms

// choices are weighted so that what can go wrong with Tocsin's own promises is
// drawn most often. An owner's lease lapses after 3 s, so a pause of an owner
// may be longer.
var choices = []choice{
	{8, Kill, []string{Alerter1, Alerter2}, 50 * ms, 4000 * ms},
	{6, Kill, []string{Notifier1, Notifier2}, 50 * ms, 4000 * ms},
	{3, Kill, []string{Collector}, 50 * ms, 2000 * ms},
	{4, Kill, []string{NATS}, 50 * ms, 3000 * ms},
	{3, Kill, []string{Redis}, 50 * ms, 2000 * ms},
	{4, Flush, []string{Redis}, 0, ms},
	{5, Pause, []string{Alerter1, Alerter2}, 200 * ms, 7000 * ms},
	{4, Pause, []string{Notifier1, Notifier2}, 200 * ms, 7000 * ms},
	{3, Pause, []string{Collector, NATS, Redis}, 200 * ms, 3000 * ms},
	{7, Cut, Links, 50 * ms, 3000 * ms},
	{9, Mute, Links, 50 * ms, 2500 * ms},
	{8, Flap, Links, 500 * ms, 4000 * ms},
	{5, Stall, Links, 200 * ms, 4500 * ms},
	{2, Cut, []string{To(Notifiers, Moody), To(Notifiers, Grouped)}, 4000 * ms, 8000 * ms},
	{2, Late, []string{Steady, Moody, Grouped}, 300 * ms, 4000 * ms},
	{2, Fail, []string{Moody, Grouped, RunPod}, 300 * ms, 5000 * ms},
	{2, Throttle, []string{Moody, Grouped}, 300 * ms, 5000 * ms},
	{2, Hang, []string{Moody, Grouped, RunPod}, 300 * ms, 5000 * ms},
	{3, Drop, []string{Steady, Moody, Grouped}, 300 * ms, 4000 * ms},
	{4, Clock, []string{NATS}, 500 * ms, 15000 * ms},
	{2, Clock, Services, 500 * ms, 10000 * ms},
}

// leastOffset and mostOffset bound by how much clocks move: less than what the
// event log remembers ids for.
const leastOffset, mostOffset = 2 * time.Second, 20 * time.Minute

// lossy are the faults that lose what NATS holds. One in lossyOf runs has one.
var lossy = []Fault{
	{Kind: Wipe, Who: NATS},
	{Kind: Wipe, Who: NATS, Part: Events},
	{Kind: Rollback, Who: NATS},
	{Kind: Rollback, Who: NATS, Part: Events},
}

// Loses tells whether the plan loses what a stream holds.
func (p Plan) Loses(stream string) bool {
	return p.Has(func(f Fault) bool {
		return (f.Kind == Wipe || f.Kind == Rollback) && (f.Part == "" || f.Part == stream)
	})
}

const (
	lossyOf             = 5
	leastAway, mostAway = 50 * ms, 1500 * ms
	leastGap, mostGap   = 1 * time.Second, 6 * time.Second
	leastLossy          = 4 * time.Second // so that there is something to lose
)

// Lossy tells whether the plan loses what NATS holds.
func (p Plan) Lossy() bool {
	return p.Has(func(f Fault) bool { return f.Kind == Wipe || f.Kind == Rollback })
}

// One in awayOf runs has a receiver that is away for a minute, longer than all
// else lasts.
const (
	awayOf   = 10
	awayTime = time.Minute
)

// drawFaults draws faults, beside those of a scene, of which no two befall the
// same at a time.
func drawFaults(r *rand.Rand, all []Fault) []Fault {
	n := leastFaults + r.IntN(mostFaults-leastFaults+1)
	if r.IntN(lossyOf) == 0 {
		if loss := drawLoss(r); !slices.ContainsFunc(all, loss.clashes) {
			all = append(all, loss)
		}
	}
	if r.IntN(awayOf) == 0 {
		away := []string{Moody, Grouped}[r.IntN(2)]
		f := Fault{Kind: Cut, Who: To(Notifiers, away), At: between(r, 0, Length), For: awayTime}
		if !slices.ContainsFunc(all, f.clashes) {
			all = append(all, f)
		}
	}
	for tries := 0; len(all) < n && tries < 20*n; tries++ {
		if f := draw(r); !slices.ContainsFunc(all, f.clashes) {
			all = append(all, f)
		}
	}
	return sorted(all)
}

// clashes tells whether two faults befall the same at the same time.
func (f Fault) clashes(o Fault) bool {
	return o.Who == f.Who && o.At <= f.End()+100*ms && f.At <= o.End()+100*ms
}

func sorted(all []Fault) []Fault {
	slices.SortFunc(all, func(a, b Fault) int { return cmp.Or(cmp.Compare(a.At, b.At), strings.Compare(a.Who, b.Who)) })
	return all
}

func draw(r *rand.Rand) Fault {
	sum := 0
	for _, c := range choices {
		sum += c.weight
	}
	at := r.IntN(sum)
	for _, c := range choices {
		if at -= c.weight; at >= 0 {
			continue
		}
		begin := between(r, 0, Length-time.Second)
		f := Fault{Kind: c.kind, Who: c.who[r.IntN(len(c.who))], At: begin, For: min(between(r, c.least, c.most), Length-begin)}
		if f.Kind == Clock {
			if f.Offset = between(r, leastOffset, mostOffset); r.IntN(2) == 0 {
				f.Offset = -f.Offset
			}
		}
		return f
	}
	panic("weights do not add up") // unreachable: at is below their sum
}

// drawLoss draws how NATS loses what it holds.
func drawLoss(r *rand.Rand) Fault {
	f := lossy[r.IntN(len(lossy))]
	f.At = between(r, leastLossy, Length-mostGap)
	f.For = between(r, leastAway, mostAway)
	if f.Kind == Rollback {
		f.For = between(r, leastGap, mostGap)
	}
	return f
}
