package query

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// teller writes the story of an alert.
type teller struct {
	*queryv1.ExplainAlertResponse
	x     *engine.Explanation // nil when it resolved
	lines []string
}

func (t *teller) say(format string, args ...any) {
	t.lines = append(t.lines, fmt.Sprintf(format, args...))
}

// story tells an alert in sentences, in the order in which people ask: what, since
// when, how bad, why, what now, and when it ends.
func story(out *queryv1.ExplainAlertResponse, x *engine.Explanation) []string {
	t := &teller{ExplainAlertResponse: out, x: x}
	a := out.GetAlert()
	t.stands(a)
	if s := a.GetAnnotations()["summary"]; s != "" {
		t.say("It says: %s", s)
	}
	if out.GetRule() == nil {
		t.say("Its rule is not in force any more.")
	}
	t.worst(a)
	t.diagnoses(a)
	if x != nil {
		t.now()
		t.ends()
	}
	return t.lines
}

// stands says what the alert is and since when.
func (t *teller) stands(a *alertv1.Alert) {
	who := fmt.Sprintf("%s on the %s %s", a.GetRule(), kindOf(a.GetTarget()), named(a.GetTarget()))
	at, active, fired := t.GetAt().AsTime(), a.GetActiveAt().AsTime(), a.GetFiredAt().AsTime()
	switch {
	case a.GetState() == alertv1.AlertState_ALERT_STATE_RESOLVED && a.GetFiredAt() == nil:
		t.say("%s is over without having fired: its condition held from %s to %s.", who, clock(active), clock(a.GetResolvedAt().AsTime()))
	case a.GetState() == alertv1.AlertState_ALERT_STATE_RESOLVED:
		t.say("%s resolved at %s, after it had fired for %s.", who, clock(a.GetResolvedAt().AsTime()), span(a.GetResolvedAt().AsTime().Sub(fired)))
	case a.GetState() == alertv1.AlertState_ALERT_STATE_PENDING:
		t.say("%s is pending: its condition has held for %s, since %s.", who, span(at.Sub(active)), clock(active))
	case a.GetFlapping():
		t.say("%s flaps: it fired and resolved again and again, last fired at %s, and is told as one notice since %s until it is calm.", who, clock(t.x.LastFired), clock(fired))
	default:
		t.say("%s has been firing for %s, since %s; its condition had held for %s before.", who, span(at.Sub(fired)), clock(fired), span(fired.Sub(active)))
	}
	if reason := a.GetResolveReason(); reason != "" {
		t.say("Why it resolved: %s.", reason)
	}
	if t.GetRemembered() {
		t.say("Nothing of it is kept in the state any more: this is what the alerter that answers remembers.")
	}
	if a.GetObserved() {
		t.say("Its rule only observes: nobody is told.")
	}
}

// worst says how bad it was.
func (t *teller) worst(a *alertv1.Alert) {
	var all []string
	for _, x := range a.GetEvidence().GetWorst() {
		all = append(all, fmt.Sprintf("%s %s at %s", x.GetName(), number(x.GetNumber()), clock(x.GetAt().AsTime())))
	}
	if len(all) > 0 {
		t.say("The worst so far: %s.", strings.Join(all, "; "))
	}
}

// diagnoses says what was wrong when it fired, and what is now if that is something
// else.
func (t *teller) diagnoses(a *alertv1.Alert) {
	then, now := a.GetEvidence().GetDiagnosis(), t.GetDiagnosis()
	switch {
	case then == nil && now == nil:
	case then == nil:
		t.say("Probably: %s", now.GetSentence())
	case now == nil || now.GetCause() == then.GetCause():
		t.say("Probably: %s", then.GetSentence())
	default:
		t.say("When it fired, probably: %s", then.GetSentence())
		t.say("Now: %s", now.GetSentence())
	}
}

// now says what is so now of its condition.
func (t *teller) now() {
	switch t.x.Cond {
	case rule.Yes:
		t.say("Its condition holds now.")
	case rule.No:
		t.say("Its condition does not hold now.")
		if t.GetNow().GetNoData() != nil {
			t.lacks("Its clear condition", true)
		}
	default:
		t.lacks("Its condition", t.x.Judged == rule.Unknown)
	}
	if times := t.x.Rule.Times; times.Set() {
		t.say("%s (times: %s).", map[rule.Truth]string{
			rule.Yes: "It held often enough to count as holding", rule.No: "It did not hold often enough to count as holding",
			rule.Unknown: "Whether it held often enough is not known",
		}[t.x.Judged], times)
	}
	if t.x.Frozen {
		t.say("Its wait stands still until more is known.")
	}
}

// lacks says of a condition that it has no value, and what comes of that. stays says
// that nothing does unless the rule decides it.
func (t *teller) lacks(what string, stays bool) {
	why := ""
	if lack := t.GetNow().GetNoData(); lack != nil {
		why = fmt.Sprintf(": %s (%s)", whyNoData(lack), strings.Join(lack.GetParts(), ", "))
	}
	switch {
	case t.x.Decided && t.x.Rule.NoData == rulefile.NoDataResolve:
		t.say("%s has no value now%s. Its rule takes that for its end (no_data: resolve).", what, why)
	case t.x.Decided:
		t.say("%s has no value now%s. Its rule takes that for a reason to fire (no_data: fire).", what, why)
	case stays:
		t.say("%s has no value now, so that the alert stays as it was%s.", what, why)
	default:
		t.say("%s has no value now%s.", what, why)
	}
}

func whyNoData(lack *alertv1.NoData) string {
	switch lack.GetReason() {
	case alertv1.NoDataReason_NO_DATA_REASON_LEFT_OUT:
		return "the source answers and leaves something out"
	case alertv1.NoDataReason_NO_DATA_REASON_UNREACHABLE:
		return "nothing is heard of the target"
	default:
		return "what is known does not decide it"
	}
}

// ends says what would end it.
func (t *teller) ends() {
	r, left := t.GetRule(), t.GetLeft().AsDuration()
	keep := r.GetKeepFiringFor().AsDuration()
	switch {
	case t.GetAlert().GetState() == alertv1.AlertState_ALERT_STATE_PENDING:
		t.say("It fires if its condition holds for %s more, and is over at once when it does not (for: %s).", span(left), model.Duration(r.GetFor().AsDuration()))
		return
	case t.GetAlert().GetFlapping():
		t.say("The notice is over when nothing has changed for %s more.", span(left))
		return
	case t.x.Clearing:
		t.say("Its end came: it resolves in %s unless its condition holds again (keep_firing_for: %s).", span(left), model.Duration(keep))
		return
	}
	end := "its condition does not hold any more"
	if r.GetUntil() != "" {
		end = "its condition does not hold and this does: " + r.GetUntil()
	}
	if keep > 0 {
		end += fmt.Sprintf(", and that for %s", model.Duration(keep))
	}
	t.say("It resolves when %s.", end)
}

// kindOf is the word for a kind of target.
func kindOf(t *eventv1.Target) string {
	return strings.ToLower(strings.TrimPrefix(t.GetKind().String(), "TARGET_KIND_"))
}

// named is a target's id with its name and its account.
func named(t *eventv1.Target) string {
	if t.GetKind() == eventv1.TargetKind_TARGET_KIND_ACCOUNT {
		return t.GetId()
	}
	if t.GetName() == "" || t.GetName() == t.GetId() {
		return fmt.Sprintf("%s of account %s", t.GetId(), t.GetAccount())
	}
	return fmt.Sprintf("%s (%s) of account %s", t.GetName(), t.GetId(), t.GetAccount())
}

// clock writes an instant for a sentence. Whoever shows it elsewhere has the fields.
func clock(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05 UTC") }

// span writes a time as people say it: whole seconds, from an hour on whole minutes.
func span(d time.Duration) string {
	d = max(0, d.Round(time.Second))
	if d >= time.Hour {
		d = d.Round(time.Minute)
	}
	return model.Duration(d).String()
}

func number(f float64) string { return fmt.Sprintf("%.4g", f) }
