package rulesuite

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/nearest"
)

// check returns what is wrong with the tests beside their form.
func (f *File) check() error {
	c := &checker{file: f}
	names := map[string]int{}
	if len(f.Tests) == 0 {
		c.wrong(1, "`tests` is missing: there is nothing to try")
	}
	if f.Interval < 0 {
		c.wrong(1, "`interval` is negative")
	}
	if err := f.Targets.Validate(); err != nil {
		for line := range strings.Lines(err.Error()) {
			c.wrong(1, "targets%s", strings.TrimSuffix(line, "\n"))
		}
	}
	for i := range f.Tests {
		t := &f.Tests[i]
		if t.Name == "" {
			c.wrong(t.line, "the test has no name")
		} else if first, twice := names[t.Name]; twice {
			c.wrong(t.line, "the test `%s` stands twice, first at line %d", t.Name, first)
		}
		names[t.Name] = t.line
		c.test(t)
	}
	return errors.Join(c.errs...)
}

type checker struct {
	file *File
	errs []error
}

func (c *checker) wrong(line int, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%s:%d: %s", c.file.name, line, fmt.Sprintf(format, args...)))
}

func (c *checker) test(t *Test) {
	if len(t.Expect) == 0 {
		c.wrong(t.line, "the test `%s` expects nothing: add `expect`", t.Name)
	}
	if len(t.Endpoints)+len(t.Pods)+len(t.Account.Series) == 0 {
		c.wrong(t.line, "the test `%s` has no endpoints, pods or account", t.Name)
	}
	for _, id := range slices.Sorted(maps.Keys(t.Endpoints)) {
		c.settings(t.line, id, t.Endpoints[id].Settings)
		checkSeries(c, t.line, "endpoint "+id, t.Endpoints[id].Series, healthFields)
	}
	for _, id := range slices.Sorted(maps.Keys(t.Pods)) {
		checkSeries(c, t.line, "pod "+id, t.Pods[id].Series, podFields)
	}
	checkSeries(c, t.line, "the account", t.Account.Series, accountFields)
	for i := range t.Events {
		c.event(t, &t.Events[i])
	}
	for i := range t.Expect {
		e := &t.Expect[i]
		if e.Firing == nil && e.Pending == nil {
			c.wrong(e.line, "nothing is expected: add `firing` or `pending`; [] stands for none")
		}
		c.instant(e.line, e.At)
		for _, w := range slices.Concat(e.Firing, e.Pending) {
			if w.Alert == "" && e.Alert == "" {
				c.wrong(e.line, "an alert is expected without its name: add `alert`")
			}
		}
	}
}

func (c *checker) instant(line int, at duration) {
	if at < 0 || time.Duration(at) > maxLength {
		c.wrong(line, "`at: %v` is not between 0 and %v", time.Duration(at), maxLength)
	}
}

func (c *checker) settings(line int, id string, s settings) {
	if s.Type != "" && s.Type != "queue" && s.Type != "load_balancer" {
		c.wrong(line, "endpoint %s: the type `%s` is neither queue nor load_balancer", id, s.Type)
	}
}

func (c *checker) event(t *Test, o *occurrence) {
	c.instant(o.line, o.At)
	c.repetition(o)
	kinds := 0
	for _, is := range []bool{o.Job != nil, o.Settings != nil, o.Removed, o.InventoryShrunk != nil, o.CollectorStarted, o.Sleep != 0} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		c.wrong(o.line, "an event is one of job, settings, removed, inventory_shrunk, collector_started and sleep; this is %d of them", kinds)
	}
	if o.Endpoint != "" {
		if _, known := t.Endpoints[o.Endpoint]; !known {
			c.wrong(o.line, "the test has no endpoint `%s`%s", o.Endpoint, nearest.Hint(o.Endpoint, slices.Sorted(maps.Keys(t.Endpoints))))
		}
	}
	if o.Pod != "" {
		if _, known := t.Pods[o.Pod]; !known {
			c.wrong(o.line, "the test has no pod `%s`%s", o.Pod, nearest.Hint(o.Pod, slices.Sorted(maps.Keys(t.Pods))))
		}
	}
	switch {
	case o.Job != nil:
		c.job(o)
	case o.Settings != nil && o.Endpoint == "":
		c.wrong(o.line, "whose settings? add `endpoint`")
	case o.Settings != nil:
		c.settings(o.line, o.Endpoint, *o.Settings)
	case o.Removed && (o.Endpoint == "") == (o.Pod == ""):
		c.wrong(o.line, "what is removed? add either `endpoint` or `pod`")
	}
}

func (c *checker) repetition(o *occurrence) {
	switch {
	case o.Every == 0 && o.Until == 0:
		return
	case o.Every <= 0 || o.Until <= o.At:
		c.wrong(o.line, "an event that is repeated has both `every` and, after `at`, `until`")
		return
	}
	c.instant(o.line, o.Until)
	if n := int64((o.Until - o.At) / o.Every); n > maxRepetitions {
		c.wrong(o.line, "the event is repeated %d times; at most %d are played", n, maxRepetitions)
	}
}

func (c *checker) job(o *occurrence) {
	if o.Endpoint == "" {
		c.wrong(o.line, "whose job? add `endpoint`")
	}
	if o.Job.ID == "" {
		c.wrong(o.line, "the job has no id")
	}
	if _, ok := jobState(o.Job.State); !ok {
		c.wrong(o.line, "the job's state `%s` is none of %s", o.Job.State, enumNames(eventv1.JobState_name, "JOB_STATE_"))
	}
	if _, ok := jobCategory(o.Job.Category); o.Job.Category != "" && !ok {
		c.wrong(o.line, "the job's category `%s` is none of %s", o.Job.Category, strings.ToLower(enumNames(eventv1.JobErrorCategory_name, "JOB_ERROR_CATEGORY_")))
	}
}

// checkSeries looks at the names and the values of series.
func checkSeries[F any](c *checker, line int, of string, all map[string]series, fields map[string]F) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if _, known := fields[name]; !known {
			c.wrong(line, "%s: `%s` is no field that polls bring%s", of, name, nearest.Hint(name, slices.Sorted(maps.Keys(fields))))
			continue
		}
		for _, v := range all[name].values {
			if v.kind == text && name != podStatus {
				c.wrong(line, "%s: %s: `%s` is no number", of, name, v.text)
				break
			}
			if v.kind == number && name == podStatus {
				c.wrong(line, "%s: %s: %v is no text such as RUNNING", of, name, v.number)
				break
			}
		}
	}
}

// jobState reads RunPod's name of a state.
func jobState(name string) (eventv1.JobState, bool) {
	v, ok := eventv1.JobState_value["JOB_STATE_"+strings.ToUpper(name)]
	return eventv1.JobState(v), ok && v != 0
}

// jobCategory reads the name of a category of failures.
func jobCategory(name string) (eventv1.JobErrorCategory, bool) {
	v, ok := eventv1.JobErrorCategory_value["JOB_ERROR_CATEGORY_"+strings.ToUpper(name)]
	return eventv1.JobErrorCategory(v), ok && v != 0
}

// enumNames lists the names of an enum's values without their prefix.
func enumNames(names map[int32]string, prefix string) string {
	var all []string
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if n != 0 {
			all = append(all, strings.TrimPrefix(names[n], prefix))
		}
	}
	return strings.Join(all, ", ")
}
