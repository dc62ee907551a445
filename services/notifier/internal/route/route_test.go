package route

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/alertmanager/config"
)

func load(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const tree = `
route:
  receiver: ops
  group_by: [team]
  labels: {owner: sre}
  routes:
  - matchers: ['severity="critical"']
    receiver: pager
    group_by: ['...']
    group_wait: 0s
    continue: true
  - matchers: ['team=~"vision|audio"']
    receiver: team
    group_by: [alertname, endpoint_id]
    group_interval: 1m
    labels: {owner: team}
    routes:
    - matchers: ['env="dev"']
      receiver: nobody
receivers:
- {name: ops}
- {name: pager}
- {name: team}
- {name: nobody}
`

func TestDestinations(t *testing.T) {
	table := NewTable(load(t, tree).Route, map[string][]Integration{
		"ops":   {{Name: "webhook/0"}},
		"pager": {{Name: "webhook/0"}, {Name: "tocsin/0"}},
		"team":  {{Name: "tocsin/0"}},
	})
	defaults := Timing{GroupWait: 30 * time.Second, GroupInterval: 5 * time.Minute, RepeatInterval: 4 * time.Hour}
	everything := map[string]string{"alertname": "A", "severity": "critical", "team": "vision", "endpoint_id": "ep1"}
	pagerKey := `{}/{severity="critical"}:{alertname="A", endpoint_id="ep1", severity="critical", team="vision"}`
	at := func(receiver, integration, key string) Lane {
		return Lane{Receiver: receiver, Integration: integration, GroupKey: key}
	}

	for _, c := range []struct {
		name   string
		labels map[string]string
		want   []Destination
	}{
		{
			"what matches nothing below goes to the root",
			map[string]string{"alertname": "A", "team": "web", "empty": ""},
			[]Destination{{
				Lane:        at("ops", "webhook/0", `{}:{team="web"}`),
				GroupLabels: map[string]string{"team": "web"},
				RouteLabels: map[string]string{"owner": "sre"},
				Timing:      defaults,
			}},
		},
		{
			"continue leads to several receivers, and each of their integrations is a lane",
			everything,
			[]Destination{
				{
					Lane: at("pager", "webhook/0", pagerKey), GroupLabels: everything, RouteLabels: map[string]string{"owner": "sre"},
					Timing: Timing{GroupWait: 0, GroupInterval: 5 * time.Minute, RepeatInterval: 4 * time.Hour},
				},
				{
					Lane: at("pager", "tocsin/0", pagerKey), GroupLabels: everything, RouteLabels: map[string]string{"owner": "sre"},
					Timing: Timing{GroupWait: 0, GroupInterval: 5 * time.Minute, RepeatInterval: 4 * time.Hour},
				},
				{
					Lane:        at("team", "tocsin/0", `{}/{team=~"vision|audio"}:{alertname="A", endpoint_id="ep1"}`),
					GroupLabels: map[string]string{"alertname": "A", "endpoint_id": "ep1"},
					RouteLabels: map[string]string{"owner": "team"},
					Timing:      Timing{GroupWait: 30 * time.Second, GroupInterval: time.Minute, RepeatInterval: 4 * time.Hour},
				},
			},
		},
		{
			"a receiver without integrations swallows",
			map[string]string{"alertname": "A", "team": "audio", "env": "dev"},
			nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, table.Destinations(c.labels)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTwoRoutesToTheSameLaneAreOne(t *testing.T) {
	table := NewTable(load(t, `
route:
  receiver: ops
  routes:
  - {matchers: ['a="1"'], receiver: ops, continue: true}
  - {matchers: ['a="1"'], receiver: ops}
receivers: [{name: ops}]
`).Route, map[string][]Integration{"ops": {{Name: "webhook/0"}}})
	if got := table.Destinations(map[string]string{"a": "1"}); len(got) != 1 {
		t.Errorf("%d destinations, want 1: %v", len(got), got)
	}
}

func TestAnIntegrationThatIsNotConfiguredIsNotFound(t *testing.T) {
	table := NewTable(load(t, tree).Route, map[string][]Integration{"ops": {{Name: "webhook/0", SendResolved: true}}})
	if in, ok := table.Integration(Lane{Receiver: "ops", Integration: "webhook/0"}); !ok || !in.SendResolved {
		t.Errorf("integration %v, %t: want the configured one", in, ok)
	}
	for _, lane := range []Lane{{Receiver: "ops", Integration: "webhook/1"}, {Receiver: "gone", Integration: "webhook/0"}} {
		if _, ok := table.Integration(lane); ok {
			t.Errorf("%v was found", lane)
		}
	}
}
