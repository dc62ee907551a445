package engine

import (
	"cmp"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
)

// FormatError says that a state was written in a format that this version does
// not know.
type FormatError struct {
	// Format is what was found.
	Format uint32
}

// Error names both formats.
func (e FormatError) Error() string {
	return fmt.Sprintf("state of format %d; this version reads formats %d to %d", e.Format, oldestFormat, stateFormat)
}

// Newer is true when a later version wrote the state.
func (e FormatError) Newer() bool { return e.Format > stateFormat }

// Restore reads what Snapshot wrote. All of it counts as changed, so that the
// next Delta holds the whole state. Its error says that the bytes are something
// else, or wraps an FormatError.
func Restore(data []byte, speed float64) (*Partition, error) {
	var s statev1.Snapshot
	if err := proto.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	p, err := fromHead(s.GetHead(), speed)
	if err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	targets, active := entries(s.GetTargets()), entries(s.GetActive())
	if err := p.load(targets, active); err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	for _, t := range p.targets {
		p.touch(t)
		if t.jobs != nil {
			p.touchJobs(t)
		}
	}
	for _, a := range p.byID {
		p.touchAlert(a)
	}
	return p, nil
}

func entries(list []*statev1.Entry) map[string][]byte {
	m := make(map[string][]byte, len(list))
	for _, e := range list {
		m[e.GetKey()] = e.GetValue()
	}
	return m
}

// Load builds the state from what Delta gave over time: the last head, and the
// values that were not deleted. Its error says that the bytes are something
// else, or wraps an FormatError.
func Load(head []byte, targets, active map[string][]byte, speed float64) (*Partition, error) {
	var h statev1.Head
	if err := proto.Unmarshal(head, &h); err != nil {
		return nil, fmt.Errorf("decode head: %w", err)
	}
	p, err := fromHead(&h, speed)
	if err != nil {
		return nil, fmt.Errorf("decode head: %w", err)
	}
	if err := p.load(targets, active); err != nil {
		return nil, fmt.Errorf("load state: %w", err)
	}
	return p, nil
}

// fromHead makes a partition of its head.
func fromHead(h *statev1.Head, speed float64) (*Partition, error) {
	if f := h.GetFormat(); f < oldestFormat || f > stateFormat {
		return nil, FormatError{f}
	}
	p := NewPartition(int(h.GetPartition()), h.GetLogId(), speed)
	p.applied, p.hash = h.GetAppliedSeq(), h.GetRuleSetHash()
	p.clock = clock{stamp: h.GetStampNs(), now: h.GetNowNs(), skipped: h.GetSkippedMs()}
	for _, g := range h.GetGaps() {
		p.clock.gaps = append(p.clock.gaps, window.Gap{From: g.GetFromMs(), To: g.GetToMs()})
	}
	p.listening = optional(h.CollectorStartedMs)
	return p, nil
}

func optional(at *int64) int64 {
	if at == nil {
		return never
	}
	return *at
}

// load reads targets, jobs and alerts. Rules and timers come with the program.
func (p *Partition) load(targets, active map[string][]byte) error {
	for _, key := range sortedKeys(targets) {
		token, suffix, _ := strings.Cut(key, "/")
		if "/"+suffix == jobsSuffix {
			continue
		}
		var s statev1.TargetState
		if err := proto.Unmarshal(targets[key], &s); err != nil {
			return fmt.Errorf("decode target %s: %w", token, err)
		}
		p.keep(decodeTarget(token, &s))
	}
	for _, key := range sortedKeys(targets) {
		token, suffix, _ := strings.Cut(key, "/")
		if "/"+suffix != jobsSuffix {
			continue
		}
		var s statev1.JobTable
		if err := proto.Unmarshal(targets[key], &s); err != nil {
			return fmt.Errorf("decode jobs of %s: %w", token, err)
		}
		if t := p.targets[token]; t != nil {
			t.jobs = decodeJobs(&s)
		}
	}
	for _, id := range sortedKeys(active) {
		var r statev1.AlertRecord
		if err := proto.Unmarshal(active[id], &r); err != nil {
			return fmt.Errorf("decode alert %s: %w", id, err)
		}
		t := p.targets[r.GetToken()]
		if t == nil {
			return fmt.Errorf("alert %s is on the target %s, which is not there", id, r.GetToken())
		}
		a := decodeAlertRecord(t, &r)
		t.alerts = append(t.alerts, a)
		p.byID[id], p.byFingerprint[a.told.GetFingerprint()] = a, a
		p.perRule[a.key]++
	}
	return nil
}

func decodeTarget(token string, s *statev1.TargetState) *target {
	t := &target{
		token: token, target: s.GetTarget(), spec: s.GetSpec(), labels: s.GetLabels(), overrides: s.GetOverrides(),
		firstSeen: s.GetFirstSeenMs(), gone: optional(s.GoneMs), slot: s.GetPollSlotMs(), interval: s.GetIntervalMs(),
		sampled: optional(s.SampledMs), sampledBus: optional(cmp.Or(s.SampledBusMs, s.SampledMs)), sampledAt: s.GetSampledAtNs(), health: s.GetHealth(), gpu: s.GetGpu(), account: s.GetAccount(),
		inventory: s.GetInventory(), failure: s.GetFailure(), tracked: s.GetTracked(), loose: s.GetSeries(),
	}
	for _, c := range s.GetCounters() {
		if id, known := expr.FieldByName(c.GetField()); known {
			t.counters = append(t.counters, counter{id, c.GetRaw(), c.GetTotal()})
		}
	}
	for _, e := range s.GetFailures() {
		f := &failures{
			category: e.GetCategory(), total: e.GetTotal(), jobIDs: e.GetJobIds(), message: e.GetMessage(),
			fingerprint: e.GetFingerprint(), last: e.GetLastMs(), novel: optional(e.NovelMs), loose: e.GetSeries(),
		}
		for _, x := range e.GetFingerprints() {
			f.seen = append(f.seen, seen{x.GetFingerprint(), x.GetAtMs()})
		}
		t.failures = append(t.failures, f)
	}
	for _, r := range s.GetRestless() {
		t.restless = append(t.restless, decodeRestless(r))
	}
	for _, y := range s.GetTallies() {
		t.tallies = append(t.tallies, decodeTally(t, y))
	}
	return t
}

func decodeJobs(s *statev1.JobTable) *jobTable {
	j := newJobTable()
	j.dropped = s.GetDropped()
	read := func(list []*statev1.Job) []*job {
		var all []*job
		for _, x := range list {
			o := &job{x.GetId(), x.GetAttempt(), x.GetState(), x.GetSinceMs()}
			j.byID[o.id] = o
			all = append(all, o)
		}
		return all
	}
	j.open, j.ended = read(s.GetOpen()), read(s.GetEnded())
	for _, d := range s.GetDelays() {
		j.delays = append(j.delays, delay{d.GetAtMs(), d.GetDelayMs()})
	}
	return j
}

func decodeAlertRecord(t *target, r *statev1.AlertRecord) *alert {
	a := &alert{key: r.GetRuleKey(), category: r.GetCategory(), target: t, told: r.GetAlert(), lack: r.GetAlert().GetEvidence().GetNoData(), worst: r.GetAlert().GetEvidence().GetWorst()}
	a.timer = newTimer(t, nil, a.category)
	a.state = rule.State{Phase: rule.Pending, Active: r.GetActiveMs()}
	if r.FiredMs != nil {
		a.state.Phase, a.state.Fired, a.state.Renew = rule.Firing, r.GetFiredMs(), r.GetRenewMs()
		a.state.Clearing, a.state.Cleared = r.ClearedMs != nil, r.GetClearedMs()
	}
	if a.hold = decodeHold(r.GetHold()); r.GetHold().GetIdle() {
		a.state = rule.State{}
	}
	a.state.Frozen, a.state.Held = r.HeldMs != nil, r.GetHeldMs()
	return a
}

func decodeSeries(loose []*statev1.Series, recorded []recorded) []window.Series {
	byKey := make(map[string]*statev1.Series, len(loose))
	for _, s := range loose {
		byKey[s.GetKey()] = s
	}
	series := make([]window.Series, len(recorded))
	for i, r := range recorded {
		s := byKey[r.key]
		if s == nil && r.detail == coarse {
			s = byKey[expr.FieldOf(r.field).Name] // written before there were coarse ones
		}
		if s == nil {
			continue
		}
		st := window.State{Until: window.Forever, First: s.GetFirstMs()}
		if s.UntilMs != nil {
			st.Until = s.GetUntilMs()
		}
		at := int64(0)
		for j, d := range s.GetStarts() {
			at += d
			if j < len(s.GetValues()) {
				st.Steps = append(st.Steps, window.Step{Start: at, Value: s.GetValues()[j], Known: true})
			}
		}
		for _, j := range s.GetUnknown() {
			if int(j) < len(st.Steps) {
				st.Steps[j].Known = false
			}
		}
		series[i] = window.Restore(st)
	}
	return series
}

// attach gives a loaded state its program: windows find their place, alerts
// their rule, and timers are set as they were.
func (p *Partition) attach(program *Program) {
	p.program = program
	for _, t := range p.sortedTargets() {
		if t.live() {
			t.series, t.loose = decodeSeries(t.loose, p.recordedOf(t)), nil
		}
		for _, f := range t.failures {
			f.series, f.loose = decodeSeries(f.loose, program.failures), nil
		}
		p.rebind(t, p.nowMs())
		p.watch(t)
	}
}
