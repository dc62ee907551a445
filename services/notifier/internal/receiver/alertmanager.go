package receiver

import (
	"maps"
	"regexp"
	"time"

	"github.com/prometheus/alertmanager/notify/webhook"
	"github.com/prometheus/alertmanager/template"

	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
)

// payload is Alertmanager's webhook payload of version 4, and one key more.
type payload struct {
	webhook.Message
	// Sequence never falls within a group; a receiver that orders may drop
	// what is lower than it has seen.
	Sequence uint64 `json:"sequence"`
}

// alertmanager writes Alertmanager's payload with Alertmanager's own types.
func alertmanager(n delivery.Notice, externalURL string) delivery.Body {
	data := &template.Data{
		Receiver:           regexp.QuoteMeta(n.Lane.Receiver),
		Status:             status(n),
		Alerts:             make(template.Alerts, 0, len(n.Alerts)),
		NotificationReason: n.Reason,
		GroupLabels:        kv(n.GroupLabels),
		CommonLabels:       common(n, func(a delivery.Alert) map[string]string { return a.Alert.GetLabels() }),
		CommonAnnotations:  common(n, func(a delivery.Alert) map[string]string { return a.Alert.GetAnnotations() }),
		RouteLabels:        kv(n.RouteLabels),
		ExternalURL:        externalURL,
	}
	for _, a := range n.Alerts {
		data.Alerts = append(data.Alerts, template.Alert{
			Status:      statusOf(a),
			Labels:      kv(a.Alert.GetLabels()),
			Annotations: kv(a.Alert.GetAnnotations()),
			StartsAt:    start(a),
			EndsAt:      end(a),
			Fingerprint: a.Alert.GetFingerprint(),
		})
	}
	return encode(payload{
		Message: webhook.Message{
			Data: data, Version: "4", GroupKey: n.Lane.GroupKey, TruncatedAlerts: uint64(n.Truncated),
		},
		Sequence: n.Sequence,
	})
}

// end is the zero time while the alert fires: receivers of Alertmanager's
// payload tell by it.
func end(a delivery.Alert) time.Time {
	if a.Firing {
		return time.Time{}
	}
	return instant(a)
}

func kv(labels map[string]string) template.KV {
	set := make(template.KV, len(labels))
	maps.Copy(set, labels)
	return set
}

// common returns the pairs that all alerts share.
func common(n delivery.Notice, of func(delivery.Alert) map[string]string) template.KV {
	if len(n.Alerts) == 0 {
		return template.KV{}
	}
	shared := kv(of(n.Alerts[0]))
	for _, a := range n.Alerts[1:] {
		labels := of(a)
		for name, value := range shared {
			if other, ok := labels[name]; !ok || other != value {
				delete(shared, name)
			}
		}
	}
	return shared
}
