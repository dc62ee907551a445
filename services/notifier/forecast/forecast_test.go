package forecast

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// alert is one that fires between two minutes; 0 is no end.
func alert(name, endpoint string, from, to int) *alertv1.Alert {
	a := &alertv1.Alert{
		Id: fmt.Sprint(name, endpoint, from), Rule: name, State: alertv1.AlertState_ALERT_STATE_FIRING,
		Labels:  map[string]string{"alertname": name, "endpoint_id": endpoint, "account": "acme"},
		FiredAt: timestamppb.New(epoch.Add(time.Duration(from) * time.Minute)),
	}
	if to > 0 {
		a.State, a.ResolvedAt = alertv1.AlertState_ALERT_STATE_RESOLVED, timestamppb.New(epoch.Add(time.Duration(to)*time.Minute))
	}
	return a
}

// routes reads a file.
func routes(t *testing.T, text string) Routes {
	t.Helper()
	path := filepath.Join(t.TempDir(), "alertmanager.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const file = `
route:
  receiver: all
  group_by: [alertname]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 1h
  routes:
  - {receiver: pager, matchers: ['alertname="Bad"'], group_by: ['...'], group_wait: 0s, continue: true}
receivers:
- name: all
  webhook_configs: [{url: 'http://127.0.0.1:1/all'}]
- name: pager
  tocsin_configs: [{url: 'http://127.0.0.1:1/pager', format: simple, send_resolved: false}]
- name: nobody
  webhook_configs: [{url: 'http://127.0.0.1:1/nobody'}]
inhibit_rules:
- {source_matchers: ['alertname="Cause"'], target_matchers: ['alertname="Symptom"'], equal: [endpoint_id]}
`

func TestMessagesAreWhatTheNotifierWouldDecide(t *testing.T) {
	for _, c := range []struct {
		name   string
		alerts []*alertv1.Alert
		want   string // messages and repeats of all, pager and nobody
	}{
		{"nothing", nil, "0/0 0/0 0/0"},
		{"one that begins and ends", []*alertv1.Alert{alert("A", "x", 0, 20)}, "2/0 0/0 0/0"},
		{"two of a group", []*alertv1.Alert{alert("A", "x", 0, 20), alert("A", "y", 0, 20)}, "2/0 0/0 0/0"},
		{"a third joins it", []*alertv1.Alert{alert("A", "x", 0, 20), alert("A", "y", 0, 20), alert("A", "z", 7, 20)}, "3/0 0/0 0/0"},
		{"two groups", []*alertv1.Alert{alert("A", "x", 0, 0), alert("B", "x", 0, 1)}, "6/3 0/0 0/0"},
		{"who wants no ends", []*alertv1.Alert{alert("Bad", "x", 0, 20)}, "0/0 1/0 0/0"},
		{"told again each hour until the end", []*alertv1.Alert{alert("Bad", "x", 0, 0)}, "0/0 4/3 0/0"},
		{"inhibited", []*alertv1.Alert{alert("Cause", "x", 0, 30), alert("Symptom", "x", 1, 30), alert("Symptom", "y", 1, 30)}, "4/0 0/0 0/0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := routes(t, file).Messages(c.alerts, epoch, epoch.Add(190*time.Minute), 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			var text []string
			for _, r := range got {
				text = append(text, fmt.Sprintf("%d/%d", r.Messages, r.Repeats))
			}
			if is := strings.Join(text, " "); is != c.want {
				t.Errorf("%s, want %s", is, c.want)
			}
			if got[1].Name != "pager" || got[1].Format != "simple" {
				t.Errorf("the second is %+v", got[1])
			}
		})
	}
}

func TestMessagesFromBeforeTheTimeDoNotCount(t *testing.T) {
	week := []*alertv1.Alert{alert("Bad", "x", 0, 0)} // at 0, and each hour after it
	ended := []*alertv1.Alert{alert("A", "x", 0, 20)} // after 30 s, and at its end
	for _, c := range []struct {
		name   string
		alerts []*alertv1.Alert
		from   time.Duration
		want   string // messages and repeats of all and pager
	}{
		{"all of it", week, 0, "0/0 4/3"},
		{"a fraction of the first millisecond", week, 900 * time.Microsecond, "0/0 4/3"},
		{"after its beginning", week, time.Millisecond, "0/0 3/3"},
		{"from a repetition on", week, 2 * time.Hour, "0/0 2/2"},
		{"after that", week, 2*time.Hour + time.Millisecond, "0/0 1/1"},
		{"its end only", ended, 10 * time.Minute, "1/0 0/0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := routes(t, file).Messages(c.alerts, epoch.Add(c.from), epoch.Add(190*time.Minute), 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if is := fmt.Sprintf("%d/%d %d/%d", got[0].Messages, got[0].Repeats, got[1].Messages, got[1].Repeats); is != c.want {
				t.Errorf("%s, want %s", is, c.want)
			}
		})
	}
}

func TestWhatFollowsANoticeOfFlappingIsToldAtItsEnd(t *testing.T) {
	of := func(fingerprint string, flapping bool, a *alertv1.Alert) *alertv1.Alert {
		a.Fingerprint, a.Flapping = fingerprint, flapping
		return a
	}
	// The names of alerts tell what happens to them.
	alerts := []*alertv1.Alert{
		of("f", false, alert("Fresh", "x", 20, 35)), // fired while the notice stood
		of("f", true, alert("Notice", "x", 5, 30)),
		of("f", false, alert("Before", "x", 1, 4)),
		of("f", true, alert("Second", "x", 50, 60)),
		of("f", false, alert("Steady", "x", 50, 0)), // did not rest since the notice fired
		of("g", false, alert("Other", "y", 20, 20)),
		of("h", true, alert("Open", "z", 22, 0)),
	}
	var got []string
	for _, c := range changes(alerts) {
		verb := "fires"
		if c.kind == alertv1.TransitionKind_TRANSITION_KIND_RESOLVED {
			verb = "ends"
		}
		got = append(got, fmt.Sprintf("%d %s %s", int(c.at.Sub(epoch).Minutes()), c.GetRule(), verb))
	}
	want := []string{
		"1 Before fires", "4 Before ends", "5 Notice fires", "20 Other fires", "20 Other ends", "22 Open fires",
		"30 Notice ends", "30 Fresh fires", "35 Fresh ends", "50 Second fires", "60 Second ends", "60 Steady fires",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestAForecastIsBounded(t *testing.T) {
	r := routes(t, strings.ReplaceAll(strings.ReplaceAll(file, "repeat_interval: 1h", "repeat_interval: 1ms"), "group_interval: 5m", "group_interval: 1ms"))
	r.most = 500
	got, err := r.Messages([]*alertv1.Alert{alert("A", "x", 0, 0)}, epoch, epoch.Add(time.Hour), 0)
	if !errors.Is(err, ErrTooMany) || got[0].Messages != 501 {
		t.Errorf("%v, %+v", err, got)
	}
}

func TestTheDefaultRoutesAndWrongOnes(t *testing.T) {
	r, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Messages([]*alertv1.Alert{alert("A", "x", 0, 20)}, epoch, epoch.Add(time.Hour), 0)
	if err != nil || len(got) != 1 || got[0].Format != "print" || got[0].Messages != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	path := filepath.Join(t.TempDir(), "wrong.yml")
	if err := os.WriteFile(path, []byte("route: {receiver: absent}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "wrong.yml") {
		t.Errorf("%v, want a mistake with its place", err)
	}
}
