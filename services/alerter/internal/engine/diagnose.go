package engine

import (
	"slices"
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/diagnosis"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
)

// allSteps is more than a series keeps.
const allSteps = 1 << 20

// diagnose says what is probably wrong with a target at an instant, or with its jobs
// that fail with a category. It reads what is there and evaluates no rule.
func (p *Partition) diagnose(t *target, category string, at int64) *alertv1.Diagnosis {
	bus := p.clock.busAt(at)
	d := diagnosis.Diagnose(p.patient(t, category, at), busTime(bus))
	for _, f := range d.GetFacts() {
		if f.AgeSeconds != nil && p.speed != 1 {
			*f.AgeSeconds /= p.speed
		}
	}
	return d
}

// busTime turns the bus's time into the calendar of a diagnosis, which knows
// distances only.
func busTime(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// patient gathers what is known of a target.
func (p *Partition) patient(t *target, category string, at int64) diagnosis.Target {
	bus := p.clock.busAt(at)
	x := diagnosis.Target{
		Kind: t.target.GetKind(), Labels: t.labels, Category: category, Failure: t.failure,
		Holds:   t.sampled != never && bus <= t.holds(),
		Numbers: map[string]float64{}, Texts: map[string]string{}, Settings: map[string]bool{}, Series: map[string][]diagnosis.Point{},
	}
	if t.sampled != never {
		x.Sampled = busTime(t.sampledBus)
	}
	about := subject{t: t, now: at, bus: bus, latest: true}
	for _, f := range expr.Fields(onOf(t.target.GetKind())) {
		v := about.field(f.ID)
		switch {
		case !v.Known():
			continue
		case v.Kind == expr.Gauge:
			x.Numbers[f.Name] = v.Number
		default:
			x.Texts[f.Name] = v.String()
		}
		x.Settings[f.Name] = sourceOf(f.ID) == factsOfSpec
	}
	for _, c := range diagnosis.Courses(x.Kind) {
		if steps := p.steps(t, c.Field, bus, c.Width.Milliseconds()); len(steps) > 0 {
			x.Series[c.Field] = steps
		}
	}
	recent := map[string]int64{}
	for _, g := range p.groups(t, "", diagnosis.FailWindow.Milliseconds(), at) {
		recent[g.GetCategory()] = g.GetCount()
	}
	for _, g := range p.groups(t, "", failuresWindow.Milliseconds(), at) {
		last := t.category(g.GetCategory()).last
		x.Errors = append(x.Errors, diagnosis.Errors{
			Category: g.GetCategory(), Count: g.GetCount(), Recent: recent[g.GetCategory()], Last: busTime(bus - (at - last)), Message: g.GetMessage(), JobIDs: g.GetJobIds(),
		})
	}
	return x
}

// steps returns the course of a field that is recorded, or nothing.
func (p *Partition) steps(t *target, field string, bus, width int64) []diagnosis.Point {
	i, found := slices.BinarySearchFunc(p.recordedOf(t), field, compareKey)
	if !found || i >= len(t.series) || t.series[i].Empty() {
		return nil
	}
	return points(t.series[i].Points(bus, width, allSteps))
}

func points(steps []window.Step) []diagnosis.Point {
	all := make([]diagnosis.Point, len(steps))
	for i, s := range steps {
		all[i] = diagnosis.Point{At: busTime(s.Start), Value: s.Value, Known: s.Known}
	}
	return all
}
