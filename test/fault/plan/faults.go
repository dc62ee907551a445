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
)

// Fault is that something breaks, for a while.
type Fault struct {
	Kind Kind
	Who  string
	At   time.Duration
	For  time.Duration
}

// String tells the fault in a line.
func (f Fault) String() string {
	return fmt.Sprintf("%6.2fs %-8s %s for %v", f.At.Seconds(), f.Kind, f.Who, f.For.Round(time.Millisecond))
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

// choices are weighted so that what can go wrong with Tocsin's own promises is
// drawn most often. An owner's lease lapses after 3 s, so a pause of an owner
// may be longer; a receiver that is away for 8 s stands for one that is away for
// a minute, as the retries after that come 15 s apart.
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
	{5, Stall, Links, 200 * ms, 4500 * ms},
	{2, Cut, []string{To(Notifiers, Moody), To(Notifiers, Grouped)}, 4000 * ms, 8000 * ms},
	{2, Fail, []string{Moody, Grouped, RunPod}, 300 * ms, 5000 * ms},
	{2, Throttle, []string{Moody, Grouped}, 300 * ms, 5000 * ms},
	{2, Hang, []string{Moody, Grouped, RunPod}, 300 * ms, 5000 * ms},
	{3, Drop, []string{Steady, Moody, Grouped}, 300 * ms, 4000 * ms},
}

// drawFaults draws faults of which no two befall the same at a time.
func drawFaults(r *rand.Rand) []Fault {
	n := leastFaults + r.IntN(mostFaults-leastFaults+1)
	var all []Fault
	for tries := 0; len(all) < n && tries < 20*n; tries++ {
		f := draw(r)
		clashes := func(o Fault) bool { return o.Who == f.Who && o.At <= f.End()+100*ms && f.At <= o.End()+100*ms }
		if !slices.ContainsFunc(all, clashes) {
			all = append(all, f)
		}
	}
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
		return Fault{c.kind, c.who[r.IntN(len(c.who))], begin, min(between(r, c.least, c.most), Length-begin)}
	}
	panic("weights do not add up") // unreachable: at is below their sum
}
