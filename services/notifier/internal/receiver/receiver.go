// Package receiver writes the bodies that receivers get, one file per format.
//
// Writing is pure: the same notice gives the same bytes. Bodies hold what alerts
// hold and nothing of the configuration but the receiver's name.
package receiver

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/settings"
)

const (
	contentJSON = "application/json"
	contentText = "text/plain; charset=utf-8"

	statusFiring   = "firing"
	statusResolved = "resolved"
)

// Writer writes the messages of all integrations.
type Writer struct {
	formats     map[[2]string]string // by receiver and integration
	externalURL string
}

// NewWriter returns a writer for the given integrations. externalURL is what
// Alertmanager's payload names as the address of the sender.
func NewWriter(integrations []settings.Integration, externalURL string) *Writer {
	w := &Writer{formats: map[[2]string]string{}, externalURL: externalURL}
	for _, in := range integrations {
		w.formats[[2]string{in.Receiver, in.Name}] = in.Format
	}
	return w
}

// Write returns the body of a notice in the format of its integration.
func (w *Writer) Write(n delivery.Notice) delivery.Body {
	switch w.formats[[2]string{n.Lane.Receiver, n.Lane.Integration}] {
	case settings.FormatStandard:
		return standard(n)
	case settings.FormatSimple:
		return simple(n)
	case settings.FormatPrint:
		return printed(n)
	default:
		return alertmanager(n, w.externalURL)
	}
}

// encode returns v as JSON and a line feed, as Alertmanager ends its bodies. It
// cannot fail for what this package encodes: strings, numbers and maps of them.
func encode(v any) delivery.Body {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		b.WriteString("{}\n")
	}
	return delivery.Body{ContentType: contentJSON, Bytes: b.Bytes()}
}

// status is firing if any alert fires, else resolved.
func status(n delivery.Notice) string {
	for _, a := range n.Alerts {
		if a.Firing {
			return statusFiring
		}
	}
	return statusResolved
}

func statusOf(a delivery.Alert) string {
	if a.Firing {
		return statusFiring
	}
	return statusResolved
}

// instant is when the alert changed to the state that it is in.
func instant(a delivery.Alert) time.Time {
	if !a.Firing && a.Alert.GetResolvedAt() != nil {
		return a.Alert.GetResolvedAt().AsTime()
	}
	return start(a)
}

// start is when the alert began to fire.
func start(a delivery.Alert) time.Time {
	if at := a.Alert.GetFiredAt(); at != nil {
		return at.AsTime()
	}
	return a.Alert.GetActiveAt().AsTime()
}

// newest is when the newest change in the notice happened; in a repetition,
// when the newest alert began to fire.
func newest(n delivery.Notice) time.Time {
	var known, changed time.Time
	for _, a := range n.Alerts {
		at := instant(a)
		if at.After(known) {
			known = at
		}
		if a.Changed && at.After(changed) {
			changed = at
		}
	}
	if changed.IsZero() {
		return known
	}
	return changed
}

// targetKind returns "endpoint", "pod" or "account".
func targetKind(t *eventv1.Target) string {
	if t.GetKind() == eventv1.TargetKind_TARGET_KIND_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(t.GetKind().String(), "TARGET_KIND_"))
}

// about names what an alert is about, for people: the target's name if it is
// known, else its id.
func about(a delivery.Alert) string {
	if name := a.Alert.GetAnnotations()["target_name"]; name != "" {
		return name
	}
	if name := a.Alert.GetTarget().GetName(); name != "" {
		return name
	}
	return a.Alert.GetTarget().GetId()
}

// ruleOf returns the name that people know the alert by.
func ruleOf(a delivery.Alert) string {
	if name := a.Alert.GetLabels()["alertname"]; name != "" {
		return name
	}
	return a.Alert.GetRule()
}

// summaryOf returns the sentence for people.
func summaryOf(a delivery.Alert) string {
	for _, name := range []string{"summary", "description", "message"} {
		if text := a.Alert.GetAnnotations()[name]; text != "" {
			return text
		}
	}
	return ruleOf(a)
}
