// Package forecast tells which messages receivers would get of alerts that fired and
// ended at known instants. It plays them through the notifier's own decisions
// (routes, grouping, waits, inhibition, repetitions) on a clock of its own; every
// receiver answers at once. It sends nothing.
package forecast

import (
	"cmp"
	"errors"
	"slices"
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/settings"
)

// maxMessages bounds a forecast, of which each message takes some 30 us: a group
// that is repeated every second for a week has 600,000, and nobody needs to know the
// rest.
const maxMessages = 200_000

// ErrTooMany says that a forecast ended at its bound, messages from before the time
// that counts included.
var ErrTooMany = errors.New("more than 200,000 messages, with those from before the time: they are counted up to there")

// Routes are who hears of what.
type Routes struct {
	settings *settings.Settings
	most     int // bounds the messages
}

// Load reads a file in Alertmanager's format. Its error names every mistake by its
// place.
func Load(path string) (Routes, error) {
	s, err := settings.Load(path)
	return Routes{s, maxMessages}, err
}

// Default returns the routes where there is no file.
func Default() (Routes, error) {
	s, err := settings.Default()
	return Routes{s, maxMessages}, err
}

// Receiver is what one way to reach a receiver would have brought.
type Receiver struct {
	// Name is the receiver's name.
	Name string
	// Integration is the way, e.g. "webhook/3f2a90c1".
	Integration string
	// Format is the format of its messages.
	Format string
	// Messages is how many there would have been.
	Messages int
	// Repeats is how many of them say nothing new.
	Repeats int
}

// Messages returns what each receiver would get from one instant to another, both
// included, in the order of the file. What began to fire before was told then, and
// counts with what is told of it from there on. hold is the setting
// notifier.inhibition_hold. The alerts need ids, fingerprints, labels, fired_at,
// flapping, and resolved_at unless they fire still.
func (r Routes) Messages(alerts []*alertv1.Alert, from, to time.Time, hold time.Duration) ([]Receiver, error) {
	// Alerts have the milliseconds of engine time, which may cut an instant short.
	p := player{from: from.Truncate(time.Millisecond), most: r.most, counts: map[route.Way]*Receiver{}}
	var all []*Receiver
	for _, in := range r.settings.Integrations {
		one := &Receiver{Name: in.Receiver, Integration: in.Name, Format: in.Format}
		all = append(all, one)
		p.counts[route.Way{Receiver: in.Receiver, Integration: in.Name}] = one
	}
	err := p.play(changes(alerts), to, delivery.Options{
		Table:     route.NewTable(r.settings.Route, r.settings.Receivers()),
		Inhibitor: route.NewInhibitor(r.settings.InhibitRules),
		Render:    func(delivery.Notice) delivery.Body { return delivery.Body{} },
		Hold:      hold,
	})
	list := make([]Receiver, 0, len(all))
	for _, one := range all {
		list = append(list, *one)
	}
	return list, err
}

// change is an alert that begins or ends at an instant.
type change struct {
	at   time.Time
	rank int // sorts what happens at one instant
	kind alertv1.TransitionKind
	*alertv1.Alert
}

// The ranks: ends come first, so that a notice that another alert follows is over
// before; but not those of what ended at once, and began before that.
const (
	rankEnd = iota
	rankBeginning
	rankEndAtOnce
)

// changes lists what happens to alerts, in order.
func changes(alerts []*alertv1.Alert) []change {
	all := make([]change, 0, 2*len(alerts))
	notices := noticesOf(alerts)
	for _, a := range alerts {
		begin := notices.told(a)
		all = append(all, change{begin, rankBeginning, alertv1.TransitionKind_TRANSITION_KIND_FIRING, a})
		if a.GetResolvedAt() == nil {
			continue
		}
		end, rank := a.GetResolvedAt().AsTime(), rankEnd
		if !end.After(begin) {
			rank = rankEndAtOnce
		}
		all = append(all, change{end, rank, alertv1.TransitionKind_TRANSITION_KIND_RESOLVED, a})
	}
	slices.SortFunc(all, func(x, y change) int {
		return cmp.Or(x.at.Compare(y.at), cmp.Compare(x.rank, y.rank), cmp.Compare(x.GetId(), y.GetId()))
	})
	return all
}

// notices are the alerts that are over of those that flapped, by fingerprint and by
// when they fired.
type notices map[string][]*alertv1.Alert

func noticesOf(alerts []*alertv1.Alert) notices {
	all := notices{}
	for _, a := range alerts {
		if a.GetFlapping() && a.GetResolvedAt() != nil {
			all[a.GetFingerprint()] = append(all[a.GetFingerprint()], a)
		}
	}
	for _, list := range all {
		slices.SortFunc(list, func(a, b *alertv1.Alert) int { return a.GetFiredAt().AsTime().Compare(b.GetFiredAt().AsTime()) })
	}
	return all
}

// told returns when an alert is first told: when it fires; but what fired while a
// notice of the same fingerprint stood is told at the notice's end.
func (n notices) told(a *alertv1.Alert) time.Time {
	fired := a.GetFiredAt().AsTime()
	list := n[a.GetFingerprint()]
	after, _ := slices.BinarySearchFunc(list, fired, func(one *alertv1.Alert, at time.Time) int {
		if one.GetFiredAt().AsTime().After(at) {
			return 1
		}
		return -1
	})
	if after == 0 {
		return fired
	}
	// Notices of one fingerprint follow each other: it is the last one or none.
	last := list[after-1]
	if end := last.GetResolvedAt().AsTime(); last != a && fired.Before(end) {
		return end
	}
	return fired
}

// player leads a core through the time.
type player struct {
	core      *delivery.Core
	from      time.Time // messages count from it on
	counts    map[route.Way]*Receiver
	shards    [delivery.Shards]uint64
	messages  int
	most      int
	sequences uint64
}

func (p *player) play(all []change, end time.Time, o delivery.Options) error {
	if len(all) == 0 {
		return nil
	}
	o.Start = all[0].at
	p.core = delivery.New(o)
	p.core.GoLive(o.Start)
	for _, c := range all {
		if c.at.After(end) {
			break
		}
		if err := p.pass(c.at); err != nil {
			return err
		}
		p.sequences++
		p.core.ApplyAlerts(c.at, delivery.AlertMessage{
			Seq: p.sequences, Stored: c.at, Transitions: []*alertv1.Transition{{Kind: c.kind, Alert: c.Alert}},
		})
	}
	return p.pass(end)
}

// pass lets the time up to an instant pass, what is due then included.
func (p *player) pass(to time.Time) error {
	for {
		at, ok := p.core.Deadline()
		if !ok || at.After(to) {
			return nil
		}
		if err := p.settle(at); err != nil {
			return err
		}
	}
}

// settle does what is due at an instant: what is decided is stored and told at once.
func (p *player) settle(now time.Time) error {
	for {
		out := p.core.Step(now)
		if len(out.Records) == 0 && len(out.Attempts) == 0 {
			return nil
		}
		for _, r := range out.Records {
			p.shards[r.Shard]++
			p.core.Journaled(r.Shard, p.shards[r.Shard], []*deliveryv1.Record{r.Record})
			if in := r.Record.GetIntended(); in != nil {
				p.count(in, now)
			}
		}
		for _, a := range out.Attempts {
			p.core.Finished(a, delivery.Outcome{Told: true, Status: 200}, now)
		}
		if p.messages > p.most {
			return ErrTooMany
		}
	}
}

// count counts a message that is decided at an instant.
func (p *player) count(in *deliveryv1.Intended, now time.Time) {
	p.messages++
	if now.Before(p.from) {
		return
	}
	one := p.counts[route.Way{Receiver: in.GetLane().GetReceiver(), Integration: in.GetLane().GetIntegration()}]
	if one == nil {
		return // routes lead to integrations of the same file only
	}
	one.Messages++
	if delivery.IsRepeat(in.GetReason()) {
		one.Repeats++
	}
}
