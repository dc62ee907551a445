package delivery

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

// lengthy makes bodies of perAlert bytes for each alert, and of the alert's
// labels and annotations times swell.
func lengthy(perAlert, swell int) func(Notice) Body {
	return func(n Notice) Body {
		b := render(n)
		bytes := 0
		for _, a := range n.Alerts {
			bytes += perAlert + swell*(size(a.Alert.GetLabels())+size(a.Alert.GetAnnotations()))
		}
		b.Bytes = append(b.Bytes, strings.Repeat(" ", bytes)...)
		return b
	}
}

func TestMessagesAreMadeSmallerUntilTheJournalTakesThem(t *testing.T) {
	for _, limit := range []int{0, 1, 400, 500, 1000} {
		for _, alerts := range []int{1, 400, 401, 700} {
			t.Run(fmt.Sprintf("%d alerts of 3 kB with max_alerts %d", alerts, limit), func(t *testing.T) {
				w := newWorld(t, grouped, map[string][]route.Integration{"ops": {{Name: "webhook/0", SendResolved: true, MaxAlerts: limit}}})
				w.core.o.Render = lengthy(3000, 0)
				for i := range alerts {
					w.fire(fmt.Sprint(i), map[string]string{"alertname": "A", "i": fmt.Sprint(i)})
				}
				w.wait(30 * time.Second)
				heard, truncated := map[string]bool{}, 0
				for messages := 0; len(w.running) > 0; messages++ {
					if messages > alerts {
						t.Fatal("the messages do not end")
					}
					a, s := w.finish(told)
					if len(a.Body.Bytes) > maxBody {
						t.Fatalf("a body of %d bytes", len(a.Body.Bytes))
					}
					for id := range s.Alerts {
						heard[id] = true
					}
					truncated += s.More
				}
				if w.cut != 0 {
					t.Errorf("%d messages were cut although they could be made smaller", w.cut)
				}
				if len(heard)+truncated < alerts {
					t.Errorf("%d alerts told and %d counted, want all %d", len(heard), truncated, alerts)
				}
			})
		}
	}
}

func TestOneAlertThatIsTooLargeIsToldWithLessOfIt(t *testing.T) {
	for _, c := range []struct {
		name   string
		render func(Notice) Body
		alerts int
	}{
		{"without its texts", lengthy(0, 80), 1},
		{"or not by name at all", lengthy(2<<20, 0), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, single, both)
			w.core.o.Render = c.render
			big := map[string]string{"alertname": "Big", "text": strings.Repeat("x", 20_000)}
			w.fire("big", big)
			out := w.core.Step(w.now)
			if len(out.Cut) != 1 || out.CutAlerts != 1 {
				t.Errorf("%d messages and %d alerts were counted as cut, want one of each", len(out.Cut), out.CutAlerts)
			}
			w.unjournaled = out.Records
			w.store()
			a, s := w.finish(told)
			if len(a.Body.Bytes) > maxSingle {
				t.Errorf("a body of %d bytes", len(a.Body.Bytes))
			}
			if len(s.Alerts) != c.alerts || s.More != 1-c.alerts {
				t.Errorf("message %+v, want %d alerts", s, c.alerts)
			}
			w.core.o.Render = render
			w.resolve("big", big)
			w.wait(time.Second)
			_, s = w.finish(told)
			wantSaid(t, s, "all alerts resolved", map[string]string{"big": "resolved"})
		})
	}
}

func TestWhatIsKeptOfAnAlertIsBounded(t *testing.T) {
	long := strings.Repeat("é", 100_000)
	labels := map[string]string{"alertname": "A", "severity": "critical", "a": long, "b": long}
	annotations := map[string]string{"summary": "short"}
	for i := range 100 {
		annotations[fmt.Sprint("text", i)] = long
	}
	k := kept(&alertv1.Alert{
		Id: "a", Labels: labels, Annotations: annotations, Rule: long, Group: long, Fingerprint: long, ResolveReason: long,
		Evidence: &alertv1.Evidence{Expression: long},
	}, nil, firing)
	if size(k.GetLabels()) > maxLabels || size(k.GetAnnotations()) > maxAnnotations || k.GetEvidence() != nil ||
		max(len(k.GetRule()), len(k.GetGroup()), len(k.GetFingerprint()), len(k.GetResolveReason())) > maxField {
		t.Errorf("kept %d bytes of labels, %d of annotations", size(k.GetLabels()), size(k.GetAnnotations()))
	}
	if end := kept(&alertv1.Alert{Id: "a"}, k, resolved); size(end.GetAnnotations()) == 0 {
		t.Error("an end without texts lost those of the firing")
	}
	if k.GetLabels()["severity"] != "critical" || k.GetAnnotations()["summary"] != "short" {
		t.Error("what is short was cut too")
	}
	if len(k.GetLabels()["a"]) < maxLabels/3 || !strings.HasSuffix(k.GetLabels()["a"], "é…") {
		t.Errorf("%d bytes of a long label are left", len(k.GetLabels()["a"]))
	}
	names := map[string]string{}
	for i := range 1000 {
		names[fmt.Sprintf("a_rather_long_name_of_a_label_%d", i)] = "v"
	}
	if got := bounded(names, maxLabels); size(got) > maxLabels || len(got) < 400 {
		t.Errorf("%d labels of %d bytes are left", len(got), size(got))
	}
	if diff := cmp.Diff(labels, map[string]string{"alertname": "A", "severity": "critical", "a": long, "b": long}); diff != "" {
		t.Error("what came in was changed")
	}
}

func TestNewsThatDoesNotFitFollowsWhatIsPending(t *testing.T) {
	w := newWorld(t, grouped, both)
	for i := range maxMentions {
		w.fire(fmt.Sprint(i), map[string]string{"alertname": "A", "i": fmt.Sprint(i)})
	}
	w.wait(30 * time.Second)
	w.finish(failed)
	w.fire("late", map[string]string{"alertname": "Z"})
	w.wait(10 * time.Minute)
	heard := map[string]bool{}
	for range 2 {
		_, s := w.finish(told)
		for id := range s.Alerts {
			heard[id] = true
		}
		w.wait(5 * time.Minute)
	}
	if !heard["late"] {
		t.Error("the alert that did not fit was never told")
	}
}
