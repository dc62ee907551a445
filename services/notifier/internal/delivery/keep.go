package delivery

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

// keep is kept, and counts when labels, annotations or names were too long.
func (c *Core) keep(now, before *alertv1.Alert, state alertv1.AlertState) *alertv1.Alert {
	k := kept(now, before, state)
	if size(k.GetLabels()) < size(now.GetLabels()) || size(k.GetAnnotations()) < size(now.GetAnnotations()) {
		c.out.CutAlerts++
	}
	return k
}

// kept returns what is kept of an alert: all but the series of its evidence,
// in the given state, with the start and the texts that before knew if now lacks
// them. What is too long is cut. It shares what it does not change with now.
func kept(now, before *alertv1.Alert, state alertv1.AlertState) *alertv1.Alert {
	k := &alertv1.Alert{
		Id: now.GetId(), Fingerprint: clip(now.GetFingerprint(), maxField), Group: clip(now.GetGroup(), maxField),
		Rule: clip(now.GetRule(), maxField), Target: now.GetTarget(), State: state,
		Labels: bounded(now.GetLabels(), maxLabels), Annotations: now.GetAnnotations(),
		ActiveAt: now.GetActiveAt(), FiredAt: now.GetFiredAt(), ResolvedAt: now.GetResolvedAt(),
		ResolveReason: clip(now.GetResolveReason(), maxField), Flapping: now.GetFlapping(),
	}
	if k.FiredAt == nil {
		k.FiredAt = before.GetFiredAt()
	}
	if len(k.GetAnnotations()) == 0 {
		k.Annotations = before.GetAnnotations() // texts are those of when it fired
	}
	if t := k.GetTarget(); proto.Size(t) > maxField {
		t = proto.CloneOf(t)
		t.Account, t.Id, t.Name = clip(t.GetAccount(), maxField), clip(t.GetId(), maxField), clip(t.GetName(), maxField)
		k.Target = t
	}
	if e := now.GetEvidence(); e != nil {
		k.Evidence = &alertv1.Evidence{
			Expression: e.GetExpression(), Values: e.GetValues(), ErrorGroups: e.GetErrorGroups(), NoData: e.GetNoData(),
			Worst: e.GetWorst(), ValuesAtFiring: e.GetValuesAtFiring(), Duration: e.GetDuration(),
		}
	}
	for name, text := range now.GetAnnotations() {
		if len(text) > maxAnnotation {
			if size(k.GetAnnotations()) == size(now.GetAnnotations()) {
				k.Annotations = maps.Clone(k.Annotations)
			}
			k.Annotations[name] = clip(text, maxAnnotation)
		}
	}
	k.Annotations = bounded(k.GetAnnotations(), maxAnnotations)
	if proto.Size(k) > maxAlert {
		k.Evidence = nil
	}
	return k
}

// ellipsis ends a text that was cut.
const ellipsis = "…"

// clip cuts a text to at most limit bytes.
func clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	if limit < len(ellipsis) {
		return ""
	}
	return strings.ToValidUTF8(text[:limit-len(ellipsis)], "") + ellipsis
}

// size returns the bytes of all names and values.
func size(set map[string]string) int {
	n := 0
	for name, value := range set {
		n += len(name) + len(value)
	}
	return n
}

// bounded returns set, or a copy of at most limit bytes: short values stay whole,
// the long ones share what is left, and names that leave no room for a value go.
func bounded(set map[string]string, limit int) map[string]string {
	if size(set) <= limit {
		return set
	}
	names := slices.SortedFunc(maps.Keys(set), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a)+len(set[a]), len(b)+len(set[b])), cmp.Compare(a, b))
	})
	cut := make(map[string]string, len(set))
	for i, name := range names {
		room := limit/(len(names)-i) - len(name)
		if value := clip(set[name], room); room > 0 && value != "" {
			cut[name] = value
			limit -= len(name) + len(value)
		}
	}
	return cut
}
