package route

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
)

const inhibitions = `
route: {receiver: ops}
receivers: [{name: ops}]
inhibit_rules:
- source_matchers: ['alertname="CrashLoop"']
  target_matchers: ['alertname=~"HighQueueDepth|NoIdleWorkers"']
  equal: [account, endpoint_id]
- source_match: {alertname: KeyRejected}
  target_match_re: {alertname: .+}
  equal: [account]
`

func labelsOf(name, endpoint string) map[string]string {
	l := map[string]string{"alertname": name, "account": "main"}
	if endpoint != "" {
		l["endpoint_id"] = endpoint
	}
	return l
}

func TestInhibited(t *testing.T) {
	in := NewInhibitor(load(t, inhibitions).InhibitRules)
	check := func(step string, want map[string]bool) {
		t.Helper()
		got := map[string]bool{}
		for id := range want {
			got[id] = in.Inhibited(id)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", step, diff)
		}
	}
	in.Fire("queue1", labelsOf("HighQueueDepth", "ep1"))
	in.Fire("queue2", labelsOf("HighQueueDepth", "ep2"))
	check("nothing inhibits yet", map[string]bool{"queue1": false, "queue2": false})

	if touched := in.Fire("crash1", labelsOf("CrashLoop", "ep1")); !slices.Equal(touched, []string{"queue1"}) {
		t.Errorf("the crash loop touched %v, want queue1 alone", touched)
	}
	check("the same endpoint alone is quiet", map[string]bool{"queue1": true, "queue2": false, "crash1": false})

	in.Fire("key", labelsOf("KeyRejected", ""))
	check("a source that matches its own target side is not inhibited by itself",
		map[string]bool{"queue1": true, "queue2": true, "crash1": true, "key": false})
	in.Fire("key2", map[string]string{"alertname": "KeyRejected", "account": "other"})
	check("another account is another world", map[string]bool{"key": false, "key2": false})

	in.Resolve("key")
	if touched := in.Resolve("crash1"); !slices.Equal(touched, []string{"queue1"}) {
		t.Errorf("the end of the crash loop touched %v, want queue1 alone", touched)
	}
	check("all sources are over", map[string]bool{"queue1": false, "queue2": false, "crash1": false})
}

func TestTwoAlertsThatMatchBothSidesDoNotInhibitEachOther(t *testing.T) {
	in := NewInhibitor(load(t, inhibitions).InhibitRules)
	in.Fire("a", labelsOf("KeyRejected", "ep1"))
	in.Fire("b", labelsOf("KeyRejected", "ep2"))
	if in.Inhibited("a") || in.Inhibited("b") {
		t.Error("alerts that match both sides of a rule inhibit each other")
	}
}

// The index agrees with the definition, and names every alert whose answer
// changes.
func TestInhibitorAgreesWithItsDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	in := NewInhibitor(load(t, inhibitions).InhibitRules)
	firing := map[string]model.LabelSet{}
	slow := func(id string) bool {
		set := firing[id]
		for _, r := range in.rules {
			if !r.target.Matches(set) {
				continue
			}
			for other, source := range firing {
				bothSides := r.source.Matches(set) && r.target.Matches(source)
				if other != id && r.source.Matches(source) && !bothSides && r.key(set) == r.key(source) {
					return true
				}
			}
		}
		return false
	}
	names := []string{"CrashLoop", "HighQueueDepth", "NoIdleWorkers", "KeyRejected", "Other"}
	answers := map[string]bool{}
	for range 5000 {
		id := fmt.Sprintf("%d", rng.IntN(40))
		var touched []string
		if _, ok := firing[id]; ok {
			delete(firing, id)
			delete(answers, id)
			touched = in.Resolve(id)
		} else {
			l := labelsOf(names[rng.IntN(len(names))], []string{"", "ep1", "ep2"}[rng.IntN(3)])
			firing[id] = labelSet(l)
			touched = append(in.Fire(id, l), id)
		}
		for other := range firing {
			want := slow(other)
			if got := in.Inhibited(other); got != want {
				t.Fatalf("%s %v inhibited: %t, want %t", other, firing[other], got, want)
			}
			if want != answers[other] && !slices.Contains(touched, other) {
				t.Fatalf("%s changed to %t and was not named", other, want)
			}
			answers[other] = want
		}
	}
	for id := range firing {
		in.Resolve(id)
	}
	for _, r := range in.rules {
		if len(r.sides) != 0 {
			t.Errorf("rule %v still holds %d keys although nothing fires", r.source, len(r.sides))
		}
	}
}
