package expr

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// measured writes what an expression compares: the text, which end is bad, and the
// value with each slot at ten times its position plus one.
func measured(t *testing.T, on rulefile.On, text string, values map[string]Value) []string {
	t.Helper()
	c, err := NewCompiler(on)
	if err != nil {
		t.Fatal(err)
	}
	e, mistakes := c.Compile(text)
	if len(mistakes) > 0 {
		t.Fatalf("%s: %v", text, mistakes)
	}
	var all []string
	for _, m := range e.Measures() {
		line := m.Text + " highest "
		if m.Lowest {
			line = m.Text + " lowest "
		}
		if v, ok := m.Value(bySlotText{c.Slots(), values}); ok {
			line += Num(v).String()
		} else {
			line += "unknown"
		}
		if m.Guard {
			line += " guard"
		}
		all = append(all, line)
	}
	return all
}

// bySlotText gives slots values by their text.
type bySlotText struct {
	slots  []Slot
	values map[string]Value
}

func (s bySlotText) Slot(id int) Value { return s.values[s.slots[id].Text] }

func TestWhatAConditionCompares(t *testing.T) {
	values := map[string]Value{
		"jobs.in_queue": Num(12), "workers.running": Num(3), "workers.max": Num(4), "workers.idle": Num(0),
		"increase(jobs.failed, '10m')": {Kind: Gauge, Number: 5, Slack: 2}, "increase(jobs.completed, '10m')": Num(15),
		"min(jobs.in_queue, '5m')": Num(7), "rate(jobs.completed, '10m')": Num(0.5),
		"threshold('queue', 10)": Num(10), "endpoint.type": Str("queue"),
	}
	for _, c := range []struct {
		name, expr string
		want       []string
	}{
		{"more is worse", "jobs.in_queue > 10", []string{"jobs.in_queue highest 12"}},
		{"less is worse", "workers.running <= 1", []string{"workers.running lowest 3"}},
		{"turned around", "10 < jobs.in_queue && 5 >= workers.running", []string{"jobs.in_queue highest 12", "workers.running lowest 3"}},
		{"turned into its opposite", "!(jobs.in_queue <= 10 || !(workers.running < 1))", []string{"jobs.in_queue highest 12", "workers.running lowest 3"}},
		{"the limit is no measure", "jobs.in_queue > threshold('queue', 10)", []string{"jobs.in_queue highest 12"}},
		{"nor where it stands on the left", "threshold('queue', 10) < jobs.in_queue", []string{"jobs.in_queue highest 12"}},
		{"of two measures the left one", "min(jobs.in_queue, '5m') > 600 * rate(jobs.completed, '10m')", []string{"min(jobs.in_queue, '5m') highest 7"}},
		{"of each comparison one, each once", "jobs.in_queue > 1 && (jobs.in_queue > 2 || workers.running < 3)", []string{"jobs.in_queue highest 12", "workers.running lowest 3"}},
		{"equal has no direction", "workers.idle == 0 && workers.max != 4 && endpoint.type == 'queue'", nil},
		{
			"a share", "increase(jobs.failed, '10m') / (increase(jobs.completed, '10m') + increase(jobs.failed, '10m')) > 0.1",
			[]string{"increase(jobs.failed, '10m') / (increase(jobs.completed, '10m') + increase(jobs.failed, '10m')) highest 0.25"},
		},
		{
			"arithmetic", "-(jobs.in_queue - (workers.running - 1)) * 2 < min(workers.max, 20)",
			[]string{"-(jobs.in_queue - (workers.running - 1)) * 2 lowest -20"},
		},
		{"two numbers", "max(workers.running, workers.max) + 1 > 3", []string{"max(workers.running, workers.max) + 1 highest 5"}},
		{"division by nothing", "workers.running / workers.idle > 1", []string{"workers.running / workers.idle highest unknown"}},
		{"what is missing", "workers.throttled > 1", []string{"workers.throttled highest unknown"}},
		{"a choice is no measure", "(jobs.in_queue > 3 ? workers.running : workers.max) > workers.idle", []string{"workers.idle lowest 0"}},
		{"any at all", "workers.idle > 0 && 0 < jobs.in_queue", []string{"workers.idle highest 0 guard", "jobs.in_queue highest 12 guard"}},
		{"any at all, and more than a limit", "workers.running > 0 && workers.running > 2", []string{"workers.running highest 3"}},
		{"two constants", "1 > 2 || jobs.in_queue > 0", []string{"jobs.in_queue highest 12 guard"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, measured(t, rulefile.OnEndpoint, c.expr, values)); diff != "" {
				t.Errorf("measures (-want +got):\n%s", diff)
			}
		})
	}
}
