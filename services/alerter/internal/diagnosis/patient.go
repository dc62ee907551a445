package diagnosis

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

// patient is a target at an instant.
type patient struct {
	Target
	now time.Time
}

// number returns the latest value of a field.
func (p *patient) number(name string) (float64, bool) {
	v, ok := p.Numbers[name]
	return v, ok
}

// none says that a field is known to be zero.
func (p *patient) none(name string) bool {
	v, ok := p.number(name)
	return ok && v == 0
}

// some says that a field is known to be above zero.
func (p *patient) some(name string) bool {
	v, ok := p.number(name)
	return ok && v > 0
}

// course returns what is known of a field's course in the last width: its least and
// greatest value, and for how long it was known.
func (p *patient) course(name string, width time.Duration) (least, most float64, known time.Duration) {
	least, most = math.Inf(1), math.Inf(-1)
	from := p.now.Add(-width)
	points := p.Series[name]
	for i, point := range points {
		end := p.now
		if i+1 < len(points) {
			end = points[i+1].At
		}
		begin := point.At
		if begin.Before(from) {
			begin = from
		}
		if !point.Known || !end.After(begin) {
			continue
		}
		known += end.Sub(begin)
		least, most = min(least, point.Value), max(most, point.Value)
	}
	return least, most, known
}

// covered is how much of a stretch must be known for "throughout" to be said of it:
// as for the windows of rules.
const covered = 0.9

// throughout says that a field is known to have been within bounds for all of the
// last width.
func (p *patient) throughout(name string, width time.Duration, lowest, highest float64) bool {
	least, most, known := p.course(name, width)
	return known >= time.Duration(covered*float64(width)) && least >= lowest && most <= highest
}

// rise returns by how much a counter rose in the last width, if that is known.
func (p *patient) rise(name string, width time.Duration) (float64, bool) {
	least, most, known := p.course(name, width)
	return most - least, known >= time.Duration(covered*float64(width))
}

// finding is a diagnosis that is being written.
type finding struct {
	p *patient
	d *alertv1.Diagnosis
}

func (p *patient) found(cause alertv1.DiagnosisCause, certainty alertv1.Certainty, format string, args ...any) *finding {
	return &finding{p, &alertv1.Diagnosis{Cause: cause, Certainty: certainty, Sentence: fmt.Sprintf(format, args...)}}
}

// fact adds the latest values of fields that have one.
func (f *finding) fact(names ...string) *finding {
	for _, name := range names {
		fact := &alertv1.DiagnosisFact{Name: name}
		if n, ok := f.p.number(name); ok {
			fact.Value = text(n)
		} else if fact.Value, ok = f.p.Texts[name]; !ok {
			continue
		}
		if !f.p.Settings[name] && !f.p.Sampled.IsZero() {
			age := f.p.now.Sub(f.p.Sampled).Seconds()
			fact.AgeSeconds = &age
		}
		f.d.Facts = append(f.d.Facts, fact)
	}
	return f
}

// saw adds something that was seen at an instant.
func (f *finding) saw(name, value string, at time.Time) *finding {
	age := f.p.now.Sub(at).Seconds()
	f.d.Facts = append(f.d.Facts, &alertv1.DiagnosisFact{Name: name, Value: value, AgeSeconds: &age})
	return f
}

// do adds what to do.
func (f *finding) do(advice ...string) *finding {
	f.d.Advice = append(f.d.Advice, advice...)
	return f
}

// or adds what else may be so.
func (f *finding) or(causes ...alertv1.DiagnosisCause) *finding {
	f.d.Alternatives = append(f.d.Alternatives, causes...)
	return f
}

func (f *finding) done() *alertv1.Diagnosis { return f.d }

// text writes a number as people read it.
func text(n float64) string {
	if n == math.Trunc(n) && math.Abs(n) < 1e15 {
		return strconv.FormatFloat(n, 'f', -1, 64)
	}
	return strconv.FormatFloat(n, 'g', 4, 64)
}

// count writes a number of things: "1 job", "3 jobs".
func count(n float64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return text(n) + " " + thing + "s"
}

// are is the verb for a number of things.
func are(n float64) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// wait is the verb for a number of jobs.
func wait(n float64) string {
	if n == 1 {
		return "waits"
	}
	return "wait"
}

// span writes a time as people say it: 45s, 12m, 3h20m.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Round(time.Minute)/time.Minute))
	default:
		d = d.Round(time.Minute)
		return strings.TrimSuffix(fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute), "0m")
	}
}

// list writes names as a sentence does: "a, b and c".
func list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
