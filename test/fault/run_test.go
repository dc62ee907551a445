package fault

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/test/fault/account"
	"github.com/tocsin-dev/tocsin/test/fault/plan"
	"github.com/tocsin-dev/tocsin/test/fault/stack"
	"github.com/tocsin-dev/tocsin/test/internal/ledger"
)

// patience bounds every wait. It is no expectation of speed: a receiver that was
// away for a minute may be retried 40 s later, and a loaded machine needs more.
const patience = 2 * time.Minute

// lookEvery is how often the accounts are looked at while they settle.
const lookEvery = 200 * time.Millisecond

// probe is an endpoint that only shows that all works before anything breaks.
const probe = "probe"

// run is one run.
type run struct {
	t      *testing.T
	plan   plan.Plan
	dir    string
	stack  *stack.Stack
	books  *books
	client *client
	wrong  []string         // what was seen to be wrong on the way
	held   map[string]int64 // the queues in the end
	// exempt is the message of EVENTS up to which it is not known what it led to,
	// and before how much each receiver was told until then.
	exempt uint64
	before map[string]int
}

// begin starts everything and waits until an alert goes all the way.
func begin(t *testing.T, p plan.Plan, dir string) *run {
	t.Helper()
	s := stack.Start(t, stack.Options{
		Programs: programs, Endpoints: append([]string{probe}, plan.Endpoints...), SyncAlways: p.SyncAlways, Dir: dir,
	})
	r := &run{t: t, plan: p, dir: dir, stack: s, before: map[string]int{}}
	r.client = newClient(t, s)
	for _, c := range []struct {
		jobs   int64
		status string
	}{{plan.Above, "firing"}, {0, "resolved"}} {
		s.Account.SetLevel(probe, c.jobs)
		for _, name := range plan.Receivers {
			r.await(s.Ledgers[name], c.status)
		}
	}
	r.client.learn()
	s.Account.SetLevel(plan.Constant, plan.Above)
	return r
}

// await waits until a receiver was told that all three alerts of the probe are
// so.
func (r *run) await(l *ledger.Ledger, status string) {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		entries, changed := l.Changed()
		seen := map[string]bool{}
		for _, states := range ledger.Told(entries) {
			if last := states[len(states)-1]; last.Status == status {
				seen[last.Labels["alertname"]] = true
			}
		}
		if len(seen) == 3 {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("not within %v: the alerts of the probe are %s; received:%s\nended: %v; see %s",
				patience, status, ledger.Summary(entries), r.stack.Ended(), r.dir)
		}
	}
}

// play plays the plan, and leaves everything well.
func (r *run) play() {
	r.t.Helper()
	steps, levels, jobs := r.plan.Steps(), r.plan.Levels, r.plan.Jobs
	began := time.Now()
	for len(steps) > 0 || len(levels) > 0 || len(jobs) > 0 {
		next := time.Duration(math.MaxInt64)
		if len(steps) > 0 {
			next = min(next, steps[0].At)
		}
		if len(levels) > 0 {
			next = min(next, levels[0].At)
		}
		if len(jobs) > 0 {
			next = min(next, jobs[0].At)
		}
		<-time.After(time.Until(began.Add(next)))
		if len(levels) > 0 && levels[0].At <= next {
			r.stack.Account.SetLevel(levels[0].Endpoint, levels[0].Jobs)
			levels = levels[1:]
		}
		if len(jobs) > 0 && jobs[0].At <= next {
			r.stack.Account.Submit(jobs[0].Endpoint, jobs[0].ID)
			r.client.submit(jobs[0])
			jobs = jobs[1:]
		}
		if len(steps) > 0 && steps[0].At <= next {
			r.do(steps[0])
			steps = steps[1:]
		}
		r.revive()
	}
}

// conclude brings the account into its last state and waits until all accounts
// agree. Where NATS lost what it held, the accounts are those of what is left;
// then everything begins and ends once more, of which nothing may be lost.
func (r *run) conclude() (missing, wrong []string) {
	r.t.Helper()
	r.books = openBooks(r.t, r.stack.NATSURL())
	r.hold(r.plan.Final)
	if r.plan.Lossy() {
		r.books.model.Begin()
		r.exempt = math.MaxUint64
		if missing, wrong = r.settle(); len(missing)+len(wrong) > 0 {
			return missing, wrong
		}
		r.exempt = r.books.events
		for name, l := range r.stack.Ledgers {
			r.before[name] = len(l.All())
		}
		for _, jobs := range []int64{0, plan.Above} {
			all := map[string]int64{}
			for _, endpoint := range plan.Endpoints {
				all[endpoint] = jobs
			}
			if r.hold(all); jobs > 0 {
				continue
			}
			if missing, wrong = r.settle(); len(missing)+len(wrong) > 0 {
				return missing, wrong
			}
		}
	}
	return r.settle()
}

// hold makes queues be as long as is said from now on.
func (r *run) hold(queues map[string]int64) {
	r.held = queues
	for endpoint, jobs := range queues {
		r.stack.Account.SetLevel(endpoint, jobs)
	}
}

// revive starts what ended by itself, as whoever runs it would; but that is wrong.
func (r *run) revive() {
	for _, name := range r.stack.Ended() {
		r.wrong = append(r.wrong, name+" ended by itself")
		r.stack.Restart(name)
	}
}

// do begins or ends a fault.
func (r *run) do(s plan.Step) {
	r.t.Helper()
	switch s.Kind {
	case plan.Kill:
		either(s.Ends, r.stack.Restart, r.stack.Kill)(s.Who)
	case plan.Pause:
		either(s.Ends, r.stack.Resume, r.stack.Pause)(s.Who)
	case plan.Flush:
		if !s.Ends {
			r.stack.Flush()
		}
	case plan.Cut, plan.Mute, plan.Stall:
		link := r.stack.Link(s.Who)
		begin := map[plan.Kind]func(){plan.Cut: link.Cut, plan.Mute: link.Mute, plan.Stall: link.Stall}[s.Kind]
		either(s.Ends, link.Heal, begin)()
	case plan.Flap:
		r.stack.Link(s.Who).Reset()
	case plan.Fail, plan.Throttle, plan.Hang, plan.Drop, plan.Late:
		r.mood(s)
	case plan.Clock:
		r.stack.MoveClock(s.Who, either(s.Ends, 0, s.Offset))
	case plan.Wipe:
		either(s.Ends, func() { r.stack.Restart(plan.NATS) }, func() { r.stack.Lose(s.Part) })()
	case plan.Rollback:
		either(s.Ends, r.stack.Rollback, r.stack.Copy)(s.Part)
	default:
		r.t.Fatalf("nobody knows how to %s", s.Kind)
	}
}

// either returns what to do at the end of a fault, or at its beginning.
func either[F any](ends bool, end, begin F) F {
	if ends {
		return end
	}
	return begin
}

// mood changes how a receiver or RunPod answers.
func (r *run) mood(s plan.Step) {
	if s.Who == plan.RunPod {
		moods := map[plan.Kind]account.Mood{plan.Fail: account.Broken, plan.Hang: account.Hanging}
		r.stack.Account.SetMood(either(s.Ends, account.Fine, moods[s.Kind]))
		return
	}
	moods := map[plan.Kind]ledger.Mood{
		plan.Fail:     {Status: http.StatusInternalServerError},
		plan.Throttle: {Status: http.StatusTooManyRequests, RetryAfter: 1},
		plan.Hang:     {Hang: true},
		plan.Drop:     {Drop: true},
		plan.Late:     {Late: stack.ReceiverTimeout * 3 / 4},
	}
	r.stack.Ledgers[s.Who].SetMood(either(s.Ends, ledger.Mood{}, moods[s.Kind]))
}

// settle waits until all accounts agree, and returns what does not.
func (r *run) settle() (missing, wrong []string) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; <-time.After(lookEvery) {
		r.revive()
		missing, wrong = r.look(r.t.Context())
		if len(wrong) > 0 || len(missing) == 0 || time.Now().After(deadline) {
			return missing, wrong
		}
	}
}

// summary counts what the accounts hold.
func (r *run) summary() string {
	deliveries := 0
	for _, l := range r.stack.Ledgers {
		deliveries += len(l.All())
	}
	return fmt.Sprintf("%d messages in EVENTS, %d acknowledged in all streams, %d transitions, %d incidents, %d deliveries, %d jobs",
		len(r.books.facts), r.stack.Wire.Mark(), len(r.books.told), len(r.books.incidents()), deliveries, len(r.client.acked()))
}

// leave writes down both accounts beside what the processes printed.
func (r *run) leave(missing, wrong []string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n\nwrong:\n%s\n\nmissing:\n%s\n", r.plan, strings.Join(wrong, "\n"), strings.Join(missing, "\n"))
	for _, name := range plan.Receivers {
		fmt.Fprintf(&b, "\nreceived by %s:%s\n", name, ledger.Summary(r.stack.Ledgers[name].All()))
	}
	b.WriteString("\nALERTS:\n")
	for _, tr := range r.books.told {
		fmt.Fprintf(&b, "  %v %s %s index %d log %s\n", changeOf(tr), tr.GetAlert().GetId(), tr.GetAlert().GetResolveReason(),
			tr.GetCause().GetIndex(), tr.GetCause().GetLogId())
	}
	b.WriteString("\nEVENTS:\n")
	for _, f := range r.books.facts {
		fmt.Fprintf(&b, "  %d %v %s held %v %v\n", f.Seq, f.Time.Format(time.RFC3339Nano), f.subject, f.Event.GetHeld().AsDuration(), f.Event.GetHealthSampled().GetJobs())
	}
	if err := os.WriteFile(filepath.Join(r.dir, "accounts.txt"), []byte(b.String()), 0o600); err != nil {
		r.t.Error(err)
	}
}
