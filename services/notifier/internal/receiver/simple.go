package receiver

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
)

// maxLines bounds the alerts that a simple message tells one by one.
const maxLines = 20

// simpleBody is the whole of a simple message: these keys and no others.
type simpleBody struct {
	Title    string `json:"title"`
	Message  string `json:"message"`
	Severity string `json:"severity"`
	// Timestamp is when the newest change happened, in Unix seconds.
	Timestamp int64 `json:"timestamp"`
}

// simple writes one flat object.
func simple(n delivery.Notice) delivery.Body {
	return encode(simpleBody{Title: title(n), Message: message(n), Severity: severity(n), Timestamp: newest(n).Unix()})
}

func title(n delivery.Notice) string {
	mark := "[" + strings.ToUpper(status(n)) + "] "
	if len(n.Alerts) == 1 && n.Truncated == 0 {
		a := n.Alerts[0]
		return mark + strings.TrimSuffix(ruleOf(a)+": "+about(a), ": ")
	}
	fire := 0
	for _, a := range n.Alerts {
		if a.Firing {
			fire++
		}
	}
	var parts []string
	if fire > 0 {
		parts = append(parts, fmt.Sprintf("%d firing", fire))
	}
	if over := len(n.Alerts) - fire; over > 0 {
		parts = append(parts, fmt.Sprintf("%d resolved", over))
	}
	if n.Truncated > 0 {
		parts = append(parts, fmt.Sprintf("%d more", n.Truncated))
	}
	return mark + strings.Join(parts, ", ")
}

func message(n delivery.Notice) string {
	if len(n.Alerts) == 1 {
		a := n.Alerts[0]
		if a.Firing {
			return summaryOf(a)
		}
		return fmt.Sprintf("%s (resolved after %s)", summaryOf(a), lasted(a))
	}
	var lines []string
	for i, a := range n.Alerts {
		if i == maxLines {
			lines = append(lines, fmt.Sprintf("and %d more", len(n.Alerts)-maxLines))
			break
		}
		lines = append(lines, fmt.Sprintf("%s: %s", statusOf(a), summaryOf(a)))
	}
	return strings.Join(lines, "\n")
}

// severities orders the usual names, gravest first.
var severities = []string{"critical", "crit", "page", "error", "high", "warning", "warn", "medium", "info", "low", "none"}

// severity returns the gravest severity among the alerts; "none" when none of
// them has any. Names that are not usual are the least grave.
func severity(n delivery.Notice) string {
	best, name := len(severities)+1, "none"
	for _, a := range n.Alerts {
		s := a.Alert.GetLabels()["severity"]
		if s == "" {
			continue
		}
		rank := slices.Index(severities, strings.ToLower(s))
		if rank < 0 {
			rank = len(severities)
		}
		if rank < best {
			best, name = rank, s
		}
	}
	return name
}

func lasted(a delivery.Alert) time.Duration {
	return max(0, instant(a).Sub(start(a)).Round(time.Second))
}

// printed writes one line for each alert that is news, or for all of them when
// none is.
func printed(n delivery.Notice) delivery.Body {
	news := slices.ContainsFunc(n.Alerts, func(a delivery.Alert) bool { return a.Changed })
	var b strings.Builder
	for _, a := range n.Alerts {
		if news && !a.Changed {
			continue
		}
		b.WriteString(line(a))
		b.WriteByte('\n')
	}
	return delivery.Body{ContentType: contentText, Bytes: []byte(b.String())}
}

// line tells of an alert in one line. What a terminal would act on is
// taken out: texts quote the output of jobs.
func line(a delivery.Alert) string {
	severity := cmp.Or(a.Alert.GetLabels()["severity"], "none")
	text := fmt.Sprintf("%s %-8s [%s] %s", iso(instant(a).Truncate(time.Second)), strings.ToUpper(statusOf(a)), severity, ruleOf(a))
	if what := strings.TrimSpace(targetKind(a.Alert.GetTarget()) + " " + about(a)); what != "" {
		text += " on " + what
	}
	if summary := summaryOf(a); summary != ruleOf(a) {
		text += ": " + summary
	}
	if !a.Firing {
		text += fmt.Sprintf(" (after %s)", lasted(a))
	}
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)), " ")
}
