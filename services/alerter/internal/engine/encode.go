package engine

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
)

const (
	// stateFormat is the version of the encoding. In the first, windows were
	// measured in engine time: a reader of that would take instants of the bus's
	// time for such, and record nothing until its clock came there.
	stateFormat = 2
	// oldestFormat is the oldest that is read. The first says nothing of gaps, and
	// is one without.
	oldestFormat = 1
)

// deterministic makes equal states equal bytes.
var deterministic = proto.MarshalOptions{Deterministic: true}

// marshal encodes a message of our own, which cannot fail: it has no required
// fields, and its texts come from decoded messages or are made here.
func marshal(m proto.Message) []byte {
	data, err := deterministic.Marshal(m)
	if err != nil {
		panic("engine: encode state: " + err.Error())
	}
	return data
}

// Delta returns what changed since the last call, encoded.
func (p *Partition) Delta() Delta {
	d := Delta{
		Head:    marshal(p.head()),
		Targets: make(map[string][]byte, len(p.dirty.targets)),
		Active:  make(map[string][]byte, len(p.dirty.alerts)),
	}
	for key := range p.dirty.targets {
		d.Targets[key] = p.encodeKey(key)
		if t := p.targets[key]; t != nil {
			t.touched = false
		}
	}
	for id := range p.dirty.alerts {
		d.Active[id] = nil
		if a := p.byID[id]; a != nil {
			d.Active[id] = marshal(a.record())
		}
	}
	clear(p.dirty.targets)
	clear(p.dirty.alerts)
	return d
}

// encodeKey encodes the value of one key of Delta.Targets; nil if there is none.
func (p *Partition) encodeKey(key string) []byte {
	token, suffix, _ := strings.Cut(key, "/")
	t := p.targets[token]
	switch {
	case t == nil:
		return nil
	case suffix == "":
		if t.live() {
			return p.encodeTarget(t)
		}
	case "/"+suffix == goneSuffix:
		if !t.live() {
			return p.encodeTarget(t)
		}
	case t.jobs != nil:
		return marshal(t.jobs.encode())
	}
	return nil
}

// Snapshot encodes the whole state. Equal states give equal bytes.
func (p *Partition) Snapshot() ([]byte, error) {
	s := &statev1.Snapshot{Head: p.head()}
	for _, t := range p.sortedTargets() {
		for _, key := range []string{t.token, t.token + goneSuffix, t.token + jobsSuffix} {
			if value := p.encodeKey(key); value != nil {
				s.Targets = append(s.Targets, &statev1.Entry{Key: key, Value: value})
			}
		}
	}
	for _, id := range sortedKeys(p.byID) {
		s.Active = append(s.Active, &statev1.Entry{Key: id, Value: marshal(p.byID[id].record())})
	}
	return deterministic.Marshal(s)
}

func (p *Partition) head() *statev1.Head {
	h := &statev1.Head{
		Format: stateFormat, Partition: uint32(p.index), LogId: p.logID,
		AppliedSeq: p.applied, StampNs: p.clock.stamp, NowNs: p.clock.now, RuleSetHash: p.hash, SkippedMs: p.clock.skipped,
	}
	for _, g := range p.clock.gaps {
		h.Gaps = append(h.Gaps, &statev1.Gap{FromMs: g.From, ToMs: g.To})
	}
	h.CollectorStartedMs = instant(p.listening)
	return h
}

// instant returns an instant of engine time, or nil if it never came.
func instant(at int64) *int64 {
	if at == never {
		return nil
	}
	return &at
}

func (p *Partition) encodeTarget(t *target) []byte {
	w := takeWriter()
	defer w.giveBack()
	s := &statev1.TargetState{
		Target: t.target, Spec: t.spec, Labels: t.labels, Overrides: t.overrides,
		FirstSeenMs: t.firstSeen, GoneMs: instant(t.gone), PollSlotMs: t.slot, IntervalMs: t.interval, SampledMs: instant(t.sampled), SampledBusMs: instant(t.sampledBus),
		SampledAtNs: t.sampledAt, Health: t.health, Gpu: t.gpu, Account: t.account, Inventory: t.inventory, Failure: t.failure,
		Tracked: t.tracked, Series: w.encode(t.loose, t.series, p.recordedOf(t)),
	}
	for _, c := range t.counters {
		s.Counters = append(s.Counters, &statev1.Counter{Field: expr.FieldOf(c.field).Name, Raw: c.raw, Total: c.total})
	}
	slices.SortFunc(s.Counters, func(a, b *statev1.Counter) int { return strings.Compare(a.GetField(), b.GetField()) })
	for _, f := range t.failures {
		e := &statev1.Failures{
			Category: f.category, Total: f.total, JobIds: f.jobIDs, Message: f.message, Fingerprint: f.fingerprint,
			LastMs: f.last, NovelMs: instant(f.novel), Series: w.encode(f.loose, f.series, p.program.failuresRecorded()),
		}
		for _, x := range f.seen {
			e.Fingerprints = append(e.Fingerprints, &statev1.Seen{Fingerprint: x.fingerprint, AtMs: x.at})
		}
		s.Failures = append(s.Failures, e)
	}
	for _, y := range t.tallies {
		s.Tallies = append(s.Tallies, y.encode())
	}
	for _, r := range t.restless {
		s.Restless = append(s.Restless, r.encode())
	}
	for _, a := range t.alerts {
		s.AlertIds = append(s.AlertIds, a.told.GetId())
	}
	slices.Sort(s.AlertIds)
	return marshal(s)
}

func (j *jobTable) encode() *statev1.JobTable {
	s := &statev1.JobTable{Dropped: j.dropped}
	for _, o := range j.open {
		s.Open = append(s.Open, &statev1.Job{Id: o.id, Attempt: o.attempt, State: o.state, SinceMs: o.since})
	}
	for _, o := range j.ended {
		s.Ended = append(s.Ended, &statev1.Job{Id: o.id, Attempt: o.attempt, State: o.state, SinceMs: o.since})
	}
	for _, d := range j.delays {
		s.Delays = append(s.Delays, &statev1.Delay{AtMs: d.at, DelayMs: d.ms})
	}
	return s
}

func (a *alert) record() *statev1.AlertRecord {
	r := &statev1.AlertRecord{Alert: a.told, Token: a.target.token, RuleKey: a.key, Category: a.category, ActiveMs: a.state.Active}
	if a.state.Phase == rule.Firing {
		r.FiredMs, r.RenewMs = &a.state.Fired, &a.state.Renew
		if a.state.Clearing {
			r.ClearedMs = &a.state.Cleared
		}
	}
	r.Hold = a.hold.encode(a.state.Phase == rule.Inactive)
	if a.state.Frozen {
		r.HeldMs = &a.state.Held
	}
	return r
}

// instantOf turns Unix nanoseconds into an instant.
func instantOf(ns int64) time.Time { return time.Unix(0, ns).UTC() }
