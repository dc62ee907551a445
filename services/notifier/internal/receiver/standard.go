package receiver

import (
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
)

// maxStandard is the size that Standard Webhooks recommends to stay below, in
// bytes. Evidence is left out to reach it, alerts are not.
const maxStandard = 20_000

// standardBody is the body that Standard Webhooks recommends.
type standardBody struct {
	// Type is alert.firing if any alert fires, else alert.resolved.
	Type string `json:"type"`
	// Timestamp is when the newest change happened.
	Timestamp string       `json:"timestamp"`
	Data      standardData `json:"data"`
}

type standardData struct {
	Receiver        string            `json:"receiver"`
	Status          string            `json:"status"`
	Reason          string            `json:"reason"`
	GroupKey        string            `json:"groupKey"`
	GroupLabels     map[string]string `json:"groupLabels"`
	Sequence        uint64            `json:"sequence"`
	TruncatedAlerts int               `json:"truncatedAlerts,omitempty"`
	Alerts          []standardAlert   `json:"alerts"`
}

type standardAlert struct {
	ID            string            `json:"id"`
	Status        string            `json:"status"`
	Group         string            `json:"group,omitempty"`
	Rule          string            `json:"rule,omitempty"`
	Target        *standardTarget   `json:"target,omitempty"`
	Labels        map[string]string `json:"labels"`
	Annotations   map[string]string `json:"annotations"`
	StartsAt      string            `json:"startsAt"`
	EndsAt        string            `json:"endsAt,omitempty"` // absent while it fires
	ResolveReason string            `json:"resolveReason,omitempty"`
	Flapping      bool              `json:"flapping,omitempty"` // the one notice of many changes
	Fingerprint   string            `json:"fingerprint"`
	Sequence      uint64            `json:"sequence"`
	Expression    string            `json:"expression,omitempty"`
	// Values are those of the firing, and of the end once it resolved.
	Values         []standardValue  `json:"values,omitempty"`
	ValuesAtFiring []standardValue  `json:"valuesAtFiring,omitempty"` // once it resolved
	Worst          []standardWorst  `json:"worst,omitempty"`          // so far, in the order of the expression
	Duration       *float64         `json:"durationSeconds,omitempty"`
	Errors         []standardErrors `json:"errors,omitempty"`
}

type standardTarget struct {
	Account string `json:"account"`
	Kind    string `json:"kind"`
	ID      string `json:"id"`
}

type standardValue struct {
	Name   string   `json:"name"`
	Value  string   `json:"value"`
	Number *float64 `json:"number,omitempty"` // absent when it is no number
}

type standardWorst struct {
	Name   string  `json:"name"`
	Number float64 `json:"number"`
	Lowest bool    `json:"lowest,omitempty"` // less is worse
	At     string  `json:"at"`
}

type standardErrors struct {
	Category string   `json:"category"`
	Count    int64    `json:"count"`
	JobIDs   []string `json:"jobIds,omitempty"`
	Message  string   `json:"message,omitempty"`
}

// standard writes the body of Standard Webhooks.
func standard(n delivery.Notice) delivery.Body {
	body := standardBody{
		Type: "alert." + status(n), Timestamp: iso(newest(n)),
		Data: standardData{
			Receiver: n.Lane.Receiver, Status: status(n), Reason: n.Reason, GroupKey: n.Lane.GroupKey,
			GroupLabels: kv(n.GroupLabels), Sequence: n.Sequence, TruncatedAlerts: n.Truncated,
			Alerts: make([]standardAlert, 0, len(n.Alerts)),
		},
	}
	for _, a := range n.Alerts {
		body.Data.Alerts = append(body.Data.Alerts, standardAlertOf(a))
	}
	written := encode(body)
	for _, less := range []func(*standardAlert){
		func(a *standardAlert) { a.Errors = nil },
		func(a *standardAlert) { a.ValuesAtFiring = nil },
		func(a *standardAlert) { a.Values = nil },
		func(a *standardAlert) { a.Worst = nil },
	} {
		if len(written.Bytes) <= maxStandard {
			break
		}
		for i := range body.Data.Alerts {
			less(&body.Data.Alerts[i])
		}
		written = encode(body)
	}
	return written
}

func standardAlertOf(a delivery.Alert) standardAlert {
	s := standardAlert{
		ID: a.Alert.GetId(), Status: statusOf(a), Group: a.Alert.GetGroup(), Rule: a.Alert.GetRule(),
		Labels: kv(a.Alert.GetLabels()), Annotations: kv(a.Alert.GetAnnotations()),
		StartsAt: iso(start(a)), ResolveReason: a.Alert.GetResolveReason(), Flapping: a.Alert.GetFlapping(),
		Fingerprint: a.Alert.GetFingerprint(), Sequence: a.Sequence,
		Expression: a.Alert.GetEvidence().GetExpression(),
	}
	if !a.Firing {
		s.EndsAt = iso(instant(a))
	}
	if t := a.Alert.GetTarget(); t != nil {
		s.Target = &standardTarget{Account: t.GetAccount(), Kind: targetKind(t), ID: t.GetId()}
	}
	evidence := a.Alert.GetEvidence()
	s.Values, s.ValuesAtFiring = standardValues(evidence.GetValues()), standardValues(evidence.GetValuesAtFiring())
	for _, x := range evidence.GetWorst() {
		if finite(&x.Number) != nil {
			s.Worst = append(s.Worst, standardWorst{Name: x.GetName(), Number: x.GetNumber(), Lowest: x.GetLowest(), At: iso(x.GetAt().AsTime())})
		}
	}
	if d := evidence.GetDuration(); d != nil && !a.Firing {
		seconds := d.AsDuration().Seconds()
		s.Duration = &seconds
	}
	for _, e := range evidence.GetErrorGroups() {
		s.Errors = append(s.Errors, standardErrors{
			Category: e.GetCategory(), Count: e.GetCount(), JobIDs: e.GetJobIds(), Message: e.GetMessage(),
		})
	}
	return s
}

func standardValues(values []*alertv1.Value) []standardValue {
	var all []standardValue
	for _, v := range values {
		all = append(all, standardValue{Name: v.GetName(), Value: v.GetValue(), Number: finite(v.Number)})
	}
	return all
}

// finite returns the number unless JSON cannot hold it; its text says it then.
func finite(f *float64) *float64 {
	if f == nil || *f-*f != 0 { // the difference is NaN for NaN and both infinities
		return nil
	}
	return f
}

func iso(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
