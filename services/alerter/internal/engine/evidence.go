package engine

import (
	"cmp"
	"slices"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
)

const (
	// maxPoints bounds the points of a series that an alert shows.
	maxPoints = 120
	// allPoints bounds those of all its series together, at about 20 bytes each: an
	// alert is stored beside its target and sent with each transition.
	allPoints = 480
)

// values returns the values of the parts of an alert's expression, as the
// cache at hand has them.
func (p *Partition) values(a *alert) *alertv1.Evidence {
	e := &alertv1.Evidence{Expression: a.rule.rule.Expr, NoData: a.lack, Worst: a.worst}
	e.Values = p.partsOf(a.rule, a.rule.cond)
	if v := a.tallyValue(); v != nil {
		e.Values = append(e.Values, v)
	}
	return e
}

// evidence returns all that an alert was judged on at an instant.
func (p *Partition) evidence(a *alert, at int64) *alertv1.Evidence {
	e := p.values(a)
	var fields []expr.FieldID
	failed := a.category != ""
	for _, id := range a.rule.cond.Parts() {
		for _, f := range a.rule.group.fieldsOf(id) {
			if !slices.Contains(fields, f) {
				fields = append(fields, f)
			}
		}
	}
	failed = failed || slices.Contains(fields, expr.JobsFailed)
	limit := min(maxPoints, allPoints/max(1, len(fields)))
	for _, f := range fields {
		if s := p.course(a, f, at, limit); s != nil {
			e.Series = append(e.Series, s)
		}
	}
	if failed {
		e.ErrorGroups = p.errorGroups(a, at)
	}
	return e
}

// course returns the recent course of a field in at most limit points, or nil if
// none is recorded.
func (p *Partition) course(a *alert, f expr.FieldID, at int64, limit int) *alertv1.Series {
	return p.courseOf(a.target, a.target.category(a.category), f, p.clock.busAt(at), a.rule.window, limit)
}

// courseOf returns the course of a field of a target, or of a category of its
// failures, in the last width before an instant of the bus's time.
func (p *Partition) courseOf(t *target, cat *failures, f expr.FieldID, bus, width int64, limit int) *alertv1.Series {
	name := expr.FieldOf(f).Name
	recorded, list := p.recordedOf(t), t.series
	if sourceOf(f)&factsOfCategory != 0 {
		recorded, list = p.program.failures, nil
		if cat != nil {
			list = cat.series
		}
	}
	i, found := slices.BinarySearchFunc(recorded, name, compareKey)
	if !found || i >= len(list) || list[i].Empty() {
		return nil
	}
	s := &alertv1.Series{Field: name}
	for _, step := range list[i].Points(bus, width, limit) {
		s.Points = append(s.Points, p.point(step, bus))
	}
	return s
}

// point turns a step into one that people read, in seconds of the world.
func (p *Partition) point(step window.Step, at int64) *alertv1.Point {
	ago := float64(at-step.Start) / 1000
	if p.speed != 1 {
		ago /= p.speed
	}
	point := &alertv1.Point{SecondsAgo: ago}
	if step.Known {
		point.Value = &step.Value
	}
	return point
}

// errorGroups returns the failed jobs of an alert's target by category, most
// first: of its own category only, on rules over jobs.
func (p *Partition) errorGroups(a *alert, at int64) []*alertv1.ErrorGroup {
	return p.groups(a.target, a.category, a.rule.window, at)
}

// groups returns the failed jobs of a target by category, most first, counted over
// a window as far as it is kept. With a category it is that one alone, also if none
// failed.
func (p *Partition) groups(t *target, category string, width, at int64) []*alertv1.ErrorGroup {
	var groups []*alertv1.ErrorGroup
	i, found := slices.BinarySearchFunc(p.program.failures, expr.FieldOf(expr.JobFailed).Name, compareKey)
	for _, f := range t.failures {
		if category != "" && f.category != category {
			continue
		}
		count := f.total
		if found && i < len(f.series) {
			if n, ok := f.series[i].Increase(p.clock.busAt(at), min(width, p.program.failures[i].length)); ok {
				count = int64(n.Least)
			}
		}
		if count == 0 && category == "" {
			continue
		}
		groups = append(groups, &alertv1.ErrorGroup{
			Category: f.category, Count: count, JobIds: slices.Clone(f.jobIDs), Message: f.message, Fingerprint: f.fingerprint,
		})
	}
	slices.SortStableFunc(groups, func(x, y *alertv1.ErrorGroup) int { return cmp.Compare(y.GetCount(), x.GetCount()) })
	return groups
}
