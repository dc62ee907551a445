package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Summary lists what deliveries say, a line for each alert in each.
func Summary(entries []Entry) string {
	var b strings.Builder
	for _, e := range entries {
		for _, a := range e.Alerts {
			fmt.Fprintf(&b, "\n  %s told=%v %s %s %s %d %s", e.ID, e.Told, a.Status, a.Labels["alertname"], a.Labels["endpoint_id"], a.Sequence, a.ID)
		}
	}
	return b.String()
}

// Told lists what was said and answered well of each alert, by its id, in the
// order of arrival.
func Told(entries []Entry) map[string][]Alert {
	return said(entries, func(e Entry) bool { return e.Told })
}

func said(entries []Entry, which func(Entry) bool) map[string][]Alert {
	by := map[string][]Alert{}
	for _, e := range entries {
		if !which(e) {
			continue
		}
		for _, a := range e.Alerts {
			by[a.ID] = append(by[a.ID], a)
		}
	}
	return by
}

// Repeats returns what is wrong with the names of deliveries: each has one, and
// one that came again has the same bytes.
func Repeats(entries []Entry) (wrong []string) {
	bodies := map[string]string{}
	for _, e := range entries {
		if e.ID == "" {
			wrong = append(wrong, "a delivery has no webhook-id: "+e.Body)
			continue
		}
		if first, ok := bodies[e.ID]; ok && first != e.Body {
			wrong = append(wrong, fmt.Sprintf("delivery %s was repeated with another body:\n%s\n%s", e.ID, first, e.Body))
		}
		bodies[e.ID] = e.Body
	}
	return wrong
}

// Order returns what is wrong with the order in which alerts were told. What is
// said of an alert never goes back: not in the order of sequences, and where
// strict is set not in the order of arrival either. A request that was held up
// on its way may arrive late, so the latter holds only where none was.
func Order(entries []Entry, strict bool) (wrong []string) {
	by := said(entries, func(Entry) bool { return true })
	for _, id := range sortedIDs(by) {
		states := by[id]
		if !strict {
			slices.SortStableFunc(states, func(a, b Alert) int { return cmp.Compare(a.Sequence, b.Sequence) })
		}
		last := states[0]
		for _, a := range states[1:] {
			name := fmt.Sprintf("alert %s (%s of %s)", id, a.Labels["alertname"], a.Labels["endpoint_id"])
			switch {
			case a.Sequence < last.Sequence:
				wrong = append(wrong, fmt.Sprintf("%s went back from sequence %d to %d", name, last.Sequence, a.Sequence))
			case a.Sequence == last.Sequence && a.Status != last.Status:
				wrong = append(wrong, fmt.Sprintf("%s is %s and %s at sequence %d", name, last.Status, a.Status, a.Sequence))
			case last.Status == "resolved" && a.Status == "firing":
				wrong = append(wrong, name+" was told as firing after its end")
			}
			if !last.StartsAt.Equal(a.StartsAt) {
				wrong = append(wrong, fmt.Sprintf("%s began at %v and then at %v", name, last.StartsAt, a.StartsAt))
			}
			last = a
		}
	}
	return wrong
}

// Names returns what is wrong with the names under which things were said: what a
// message says, it alone says, however often it came. Each message tells news, so
// none says of the same alerts the same as one before.
func Names(entries []Entry) (wrong []string) {
	first := map[string]string{}
	for _, e := range entries {
		var states []string
		for _, a := range e.Alerts {
			states = append(states, fmt.Sprintf("%s of %s %s (%s)", a.Labels["alertname"], a.Labels["endpoint_id"], a.Status, a.ID))
		}
		slices.Sort(states)
		said := strings.Join(states, ", ")
		if name, known := first[said]; known && name != e.ID {
			wrong = append(wrong, fmt.Sprintf("the same was told as %s and as %s: %s", name, e.ID, said))
		}
		first[said] = e.ID
	}
	return wrong
}

func sortedIDs(by map[string][]Alert) []string {
	ids := make([]string, 0, len(by))
	for id := range by {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
