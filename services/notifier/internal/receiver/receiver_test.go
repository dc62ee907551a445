package receiver

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/alertmanager/notify/webhook"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/settings"
)

var fired = time.Date(2026, 11, 23, 8, 32, 1, 427981563, time.UTC)

func firingAlert() delivery.Alert {
	number := 41.0
	return delivery.Alert{
		Firing: true, Changed: true, Sequence: 7169,
		Alert: &alertv1.Alert{
			Id: "a1", Fingerprint: "9a24f5b5b0a27fb7", Group: "endpoint", Rule: "CrashLoop",
			Target:      &eventv1.Target{Account: "main", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: "ep1", Name: "img-prod"},
			Labels:      map[string]string{"alertname": "CrashLoop", "endpoint_id": "ep1", "severity": "critical"},
			Annotations: map[string]string{"summary": "crash loop, <41> queued", "runbook": "look"},
			State:       alertv1.AlertState_ALERT_STATE_FIRING,
			FiredAt:     timestamppb.New(fired),
			Evidence: &alertv1.Evidence{
				Expression:  "jobs.in_queue > 0",
				Values:      []*alertv1.Value{{Name: "jobs.in_queue", Value: "41", Number: &number}},
				ErrorGroups: []*alertv1.ErrorGroup{{Category: "crash", Count: 3, JobIds: []string{"j1"}, Message: "boom"}},
			},
		},
	}
}

func resolvedAlert() delivery.Alert {
	a := firingAlert()
	a.Firing, a.Sequence = false, 8193
	a.Alert.Id, a.Alert.Fingerprint = "a2", "0000000000000002"
	a.Alert.Labels = map[string]string{"alertname": "Saturated", "endpoint_id": "ep1", "severity": "warning"}
	a.Alert.Annotations = map[string]string{"summary": "all workers busy", "runbook": "look"}
	a.Alert.State, a.Alert.ResolvedAt = alertv1.AlertState_ALERT_STATE_RESOLVED, timestamppb.New(fired.Add(5*time.Minute))
	return a
}

func notice(alerts ...delivery.Alert) delivery.Notice {
	return delivery.Notice{
		ID: "msg_1", Lane: route.Lane{Receiver: "web.hook", Integration: "x/0", GroupKey: `{}:{endpoint_id="ep1"}`},
		GroupLabels: map[string]string{"endpoint_id": "ep1"}, RouteLabels: map[string]string{"team": "gpu"},
		Reason: "first notification", Sequence: 8193, Alerts: alerts,
	}
}

func write(t *testing.T, format string, n delivery.Notice) delivery.Body {
	t.Helper()
	w := NewWriter([]settings.Integration{{Receiver: "web.hook", Name: "x/0", Format: format}}, "http://tocsin:9193")
	body := w.Write(n)
	if again := w.Write(n); string(again.Bytes) != string(body.Bytes) {
		t.Errorf("two writings differ:\n%s\n%s", body.Bytes, again.Bytes)
	}
	return body
}

const wantPayload = `{"receiver":"web\\.hook","status":"firing",
 "alerts":[
  {"status":"firing",
   "labels":{"alertname":"CrashLoop","endpoint_id":"ep1","severity":"critical"},
   "annotations":{"runbook":"look","summary":"crash loop, <41> queued"},
   "startsAt":"2026-11-23T08:32:01.427981563Z","endsAt":"0001-01-01T00:00:00Z",
   "generatorURL":"","fingerprint":"9a24f5b5b0a27fb7"},
  {"status":"resolved",
   "labels":{"alertname":"Saturated","endpoint_id":"ep1","severity":"warning"},
   "annotations":{"runbook":"look","summary":"all workers busy"},
   "startsAt":"2026-11-23T08:32:01.427981563Z","endsAt":"2026-11-23T08:37:01.427981563Z",
   "generatorURL":"","fingerprint":"0000000000000002"}],
 "notification_reason":"first notification",
 "groupLabels":{"endpoint_id":"ep1"},
 "commonLabels":{"endpoint_id":"ep1"},
 "commonAnnotations":{"runbook":"look"},
 "routeLabels":{"team":"gpu"},
 "externalURL":"http://tocsin:9193",
 "version":"4","groupKey":"{}:{endpoint_id=\"ep1\"}","truncatedAlerts":3,
 "sequence":8193}`

func TestAlertmanagersPayload(t *testing.T) {
	n := notice(firingAlert(), resolvedAlert())
	n.Truncated = 3
	body := write(t, settings.FormatAlertmanager, n)
	if body.ContentType != "application/json" || !strings.HasSuffix(string(body.Bytes), "}\n") {
		t.Errorf("content type %q, body %q", body.ContentType, body.Bytes)
	}
	if diff := cmp.Diff(asJSON(t, []byte(wantPayload)), asJSON(t, body.Bytes)); diff != "" {
		t.Error(diff)
	}
	// Keys in the order of Alertmanager's own bodies, for receivers that show them.
	if at := strings.Index(string(body.Bytes), `"receiver"`); at != 1 {
		t.Errorf("the body begins %.40s", body.Bytes)
	}
}

func TestAlertmanagersDecoderReadsIt(t *testing.T) {
	body := write(t, settings.FormatAlertmanager, notice(firingAlert(), resolvedAlert()))
	var m webhook.Message
	if err := json.Unmarshal(body.Bytes, &m); err != nil {
		t.Fatal(err)
	}
	if m.Version != "4" || m.Status != "firing" || len(m.Alerts.Firing()) != 1 || len(m.Alerts.Resolved()) != 1 ||
		m.GroupKey != `{}:{endpoint_id="ep1"}` || !m.Alerts[0].EndsAt.IsZero() || !m.Alerts[0].StartsAt.Equal(fired) {
		t.Errorf("decoded %+v", m)
	}
	empty := write(t, settings.FormatAlertmanager, delivery.Notice{Lane: route.Lane{Receiver: "web.hook", Integration: "x/0"}})
	for _, key := range []string{`"alerts":[]`, `"routeLabels":{}`, `"groupLabels":{}`, `"commonLabels":{}`, `"commonAnnotations":{}`} {
		if !strings.Contains(string(empty.Bytes), key) {
			t.Errorf("an empty notice lacks %s: %s", key, empty.Bytes)
		}
	}
}

const wantStandard = `{"type":"alert.firing","timestamp":"2026-11-23T08:32:01.427981563Z","data":{
 "receiver":"web.hook","status":"firing","reason":"first notification",
 "groupKey":"{}:{endpoint_id=\"ep1\"}","groupLabels":{"endpoint_id":"ep1"},"sequence":8193,
 "alerts":[{
  "id":"a1","status":"firing","group":"endpoint","rule":"CrashLoop",
  "target":{"account":"main","kind":"endpoint","id":"ep1"},
  "labels":{"alertname":"CrashLoop","endpoint_id":"ep1","severity":"critical"},
  "annotations":{"runbook":"look","summary":"crash loop, <41> queued"},
  "startsAt":"2026-11-23T08:32:01.427981563Z","fingerprint":"9a24f5b5b0a27fb7","sequence":7169,
  "expression":"jobs.in_queue > 0",
  "values":[{"name":"jobs.in_queue","value":"41","number":41}],
  "errors":[{"category":"crash","count":3,"jobIds":["j1"],"message":"boom"}]}]}}`

func TestStandard(t *testing.T) {
	body := write(t, settings.FormatStandard, notice(firingAlert()))
	if diff := cmp.Diff(asJSON(t, []byte(wantStandard)), asJSON(t, body.Bytes)); diff != "" {
		t.Error(diff)
	}
	flaps := firingAlert()
	flaps.Alert.Flapping = true
	if got := string(write(t, settings.FormatStandard, notice(flaps)).Bytes); !strings.Contains(got, `"flapping":true`) {
		t.Errorf("it does not say that the alert flaps: %s", got)
	}
	ended := resolvedAlert()
	ended.Alert.Evidence.ValuesAtFiring = []*alertv1.Value{{Name: "jobs.in_queue", Value: "9"}}
	ended.Alert.Evidence.Duration = durationpb.New(5 * time.Minute)
	ended.Alert.Evidence.Worst = []*alertv1.Extreme{
		{Name: "jobs.in_queue", Number: 212, At: timestamppb.New(fired)},
		{Name: "x", Number: 0, Lowest: true, At: timestamppb.New(fired)},
		{Name: "endless", Number: math.Inf(1)},
	}
	over := string(write(t, settings.FormatStandard, notice(ended)).Bytes)
	for _, want := range []string{
		`"valuesAtFiring":[{"name":"jobs.in_queue","value":"9"}],"worst":[{"name":"jobs.in_queue","number":212,"at":"2026-11-23T08:32:01.427981563Z"},` +
			`{"name":"x","number":0,"lowest":true,"at":"2026-11-23T08:32:01.427981563Z"}],"durationSeconds":300`,
		`"type":"alert.resolved"`, `"timestamp":"2026-11-23T08:37:01.427981563Z"`, `"endsAt":"2026-11-23T08:37:01.427981563Z"`,
	} {
		if !strings.Contains(over, want) {
			t.Errorf("missing %s in %s", want, over)
		}
	}
}

func TestStandardLeavesEvidenceOutToStaySmall(t *testing.T) {
	var alerts []delivery.Alert
	for i := range 40 {
		a := firingAlert()
		a.Alert.Id = fmt.Sprint(i)
		for range 4 {
			a.Alert.Evidence.ErrorGroups = append(a.Alert.Evidence.ErrorGroups, a.Alert.GetEvidence().GetErrorGroups()[0])
		}
		alerts = append(alerts, a)
	}
	body := string(write(t, settings.FormatStandard, notice(alerts...)).Bytes)
	if len(body) > maxStandard || strings.Contains(body, `"errors"`) {
		t.Errorf("%d bytes", len(body))
	}
	if strings.Count(body, `"status":"firing","group"`) != 40 {
		t.Error("an alert was left out")
	}
}

func TestNumbersThatJSONCannotHoldAreTextAlone(t *testing.T) {
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		a := firingAlert()
		a.Alert.Evidence.Values = []*alertv1.Value{{Name: "x", Value: fmt.Sprint(f), Number: &f}}
		body := write(t, settings.FormatStandard, notice(a))
		if got := string(body.Bytes); !strings.Contains(got, fmt.Sprintf(`"value":%q}`, fmt.Sprint(f))) {
			t.Errorf("%v: %s", f, got)
		}
	}
}

func TestSimpleHasExactlyItsFourKeys(t *testing.T) {
	for _, c := range []struct {
		name   string
		notice delivery.Notice
		want   string
	}{
		{
			"one alert fires", notice(firingAlert()),
			`{"title":"[FIRING] CrashLoop: img-prod","message":"crash loop, <41> queued","severity":"critical","timestamp":1795422721}`,
		},
		{
			"one alert is over", notice(resolvedAlert()),
			`{"title":"[RESOLVED] Saturated: img-prod","message":"all workers busy (resolved after 5m0s)","severity":"warning","timestamp":1795423021}`,
		},
		{
			"a group", notice(resolvedAlert(), firingAlert()),
			`{"title":"[FIRING] 1 firing, 1 resolved","message":"resolved: all workers busy\nfiring: crash loop, <41> queued","severity":"critical","timestamp":1795423021}`,
		},
		{
			"an alert that says little", notice(delivery.Alert{Firing: true, Alert: &alertv1.Alert{Rule: "R", FiredAt: timestamppb.New(fired)}}),
			`{"title":"[FIRING] R","message":"R","severity":"none","timestamp":1795422721}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := write(t, settings.FormatSimple, c.notice)
			if got := strings.TrimSuffix(string(body.Bytes), "\n"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestSeverityIsTheGravest(t *testing.T) {
	with := func(severities ...string) delivery.Notice {
		var n delivery.Notice
		for _, s := range severities {
			n.Alerts = append(n.Alerts, delivery.Alert{Alert: &alertv1.Alert{Labels: map[string]string{"severity": s}}})
		}
		return n
	}
	for _, c := range []struct {
		want string
		from []string
	}{
		{"critical", []string{"info", "critical", "warning"}},
		{"Warning", []string{"info", "Warning", "strange"}},
		{"strange", []string{"strange", ""}},
		{"none", []string{""}},
	} {
		if got := severity(with(c.from...)); got != c.want {
			t.Errorf("%v: %q, want %q", c.from, got, c.want)
		}
	}
}

func TestPrintedIsOneHarmlessLineForEachNewAlert(t *testing.T) {
	nasty := firingAlert()
	nasty.Alert.Annotations["summary"] = "line one\nline two \x1b[2J\x07\u202e end"
	known := resolvedAlert()
	known.Changed = false
	body := write(t, settings.FormatPrint, notice(nasty, known))
	want := "2026-11-23T08:32:01Z FIRING [critical] CrashLoop on endpoint img-prod: line one line two [2J end\n"
	if got := string(body.Bytes); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	body = write(t, settings.FormatPrint, notice(resolvedAlert()))
	want = "2026-11-23T08:37:01Z RESOLVED [warning] Saturated on endpoint img-prod: all workers busy (after 5m0s)\n"
	if got := string(body.Bytes); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func asJSON(t *testing.T, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return v
}
