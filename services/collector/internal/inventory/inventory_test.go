package inventory_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/inventory"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

const (
	endpoint = eventv1.TargetKind_TARGET_KIND_ENDPOINT
	pod      = eventv1.TargetKind_TARGET_KIND_POD
)

// most is more targets than any of these tests has, but for those of the bound.
const most = 1000

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// seen returns endpoints with these ids.
func seen(ids ...string) []inventory.Seen {
	list := make([]inventory.Seen, len(ids))
	for i, id := range ids {
		list[i] = inventory.FromEndpoint(runpod.Endpoint{ID: id, Name: "name of " + id, Type: runpod.Queue})
	}
	return list
}

// many returns n ids.
func many(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("ep%02d", i)
	}
	return ids
}

// kinds returns what the events are, in order, with the target's id.
func kinds(out inventory.Outcome) []string {
	var list []string
	for _, e := range out.Events {
		list = append(list, event.Kind(e)+" "+e.GetTarget().GetId())
	}
	return list
}

func key(id string) inventory.Key { return inventory.Key{Kind: endpoint, ID: id} }

func TestEachTargetIsDiscoveredOnce(t *testing.T) {
	inv := inventory.New("default", most)
	first := inv.List(endpoint, seen("a", "b"), noon)
	if diff := cmp.Diff([]string{"target_discovered a", "target_discovered b"}, kinds(first)); diff != "" {
		t.Errorf("first list (-want +got):\n%s", diff)
	}
	if got := kinds(inv.List(endpoint, seen("b", "a"), noon.Add(time.Minute))); got != nil {
		t.Errorf("the same list again tells %v", got)
	}
	if len(first.Added) != 2 || first.Events[0].GetId() == "" || first.Events[0].GetId() == first.Events[1].GetId() {
		t.Errorf("discoveries are %v", first.Events)
	}
}

func TestAChangeIsToldOfSettingsAndNames(t *testing.T) {
	five, nine := int64(5), int64(9)
	list := func(name string, workers *int64, zones ...string) []inventory.Seen {
		return []inventory.Seen{inventory.FromEndpoint(runpod.Endpoint{ID: "a", Name: name, MaxWorkers: workers, DataCenterIDs: zones})}
	}
	inv := inventory.New("default", most)
	inv.List(endpoint, list("img", &five, "US", "EU"), noon)
	for name, test := range map[string]struct {
		list []inventory.Seen
		want []string
	}{
		"the order of its data centres says nothing": {list("img", &five, "EU", "US"), nil},
		"another number of workers":                  {list("img", &nine, "US", "EU"), []string{"target_changed a"}},
		"another name":                               {list("img2", &five, "US", "EU"), []string{"target_changed a"}},
		"a setting that is not sent any more":        {list("img", nil, "US", "EU"), []string{"target_changed a"}},
	} {
		t.Run(name, func(t *testing.T) {
			inv.List(endpoint, list("img", &five, "US", "EU"), noon)
			if diff := cmp.Diff(test.want, kinds(inv.List(endpoint, test.list, noon))); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestASettingThatIsTurnedThereAndBackIsTwoFacts(t *testing.T) {
	inv := inventory.New("default", most)
	ids := map[string]bool{}
	for i := range 6 {
		workers := int64(i % 2)
		out := inv.List(endpoint, []inventory.Seen{inventory.FromEndpoint(runpod.Endpoint{ID: "a", MaxWorkers: &workers})}, noon)
		ids[out.Events[0].GetId()] = true
	}
	if len(ids) != 6 {
		t.Errorf("six facts have %d ids", len(ids))
	}
}

func TestATargetIsRemovedAfterThreeListsAndANo(t *testing.T) {
	inv := inventory.New("default", most)
	inv.List(endpoint, seen("a", "b"), noon)
	for i := range 2 {
		if out := inv.List(endpoint, seen("b"), noon); len(out.Doubtful) > 0 {
			t.Errorf("doubted after %d lists", i+1)
		}
	}
	out := inv.List(endpoint, seen("b"), noon)
	if diff := cmp.Diff([]inventory.Key{key("a")}, out.Doubtful); diff != "" || out.Events != nil {
		t.Fatalf("third list doubts (-want +got):\n%s", diff)
	}
	gone := inv.Answered(key("a"), false, noon)
	if diff := cmp.Diff([]string{"target_removed a"}, kinds(gone)); diff != "" || len(gone.Removed) != 1 {
		t.Errorf("a no (-want +got):\n%s", diff)
	}
	if again := inv.Answered(key("a"), false, noon); again.Events != nil {
		t.Errorf("removed twice: %v", again.Events)
	}
}

func TestATargetIsKept(t *testing.T) {
	for name, step := range map[string]func(*inventory.Inventory) inventory.Outcome{
		"when RunPod says that it exists": func(inv *inventory.Inventory) inventory.Outcome {
			return inv.Answered(key("a"), true, noon)
		},
		"when it is listed again before RunPod says no": func(inv *inventory.Inventory) inventory.Outcome {
			inv.List(endpoint, seen("a", "b"), noon)
			return inv.Answered(key("a"), false, noon)
		},
		"when the lists without it are of another kind": func(inv *inventory.Inventory) inventory.Outcome {
			return inv.List(pod, nil, noon)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inv := inventory.New("default", most)
			inv.List(endpoint, seen("a", "b"), noon)
			for range 3 {
				inv.List(endpoint, seen("b"), noon)
			}
			if out := step(inv); out.Events != nil || out.Removed != nil {
				t.Errorf("told %v", out.Events)
			}
			if _, known := inv.Target(key("a")); !known {
				t.Error("the target is gone")
			}
		})
	}
}

func TestWhatIsListedAndCannotBeReadStaysAsItWasKnown(t *testing.T) {
	inv := inventory.New("default", most)
	inv.List(endpoint, seen("a", "b", "c", "d"), noon)
	for range 5 {
		out := inv.List(endpoint, append(seen("b", "c", "d"), inventory.Seen{ID: "a"}, inventory.Seen{ID: "e"}), noon)
		if out.Events != nil || out.Doubtful != nil || out.Added != nil {
			t.Errorf("told %v, doubted %v", out.Events, out.Doubtful)
		}
	}
	if got, known := inv.Target(key("a")); !known || got.Name != "name of a" || got.Spec.GetEndpoint() == nil {
		t.Errorf("a is %+v, %v", got, known)
	}
	if _, known := inv.Target(key("e")); known {
		t.Error("of e nothing is known, and yet it is")
	}
	again := inv.List(endpoint, append(seen("b", "c", "d"), inventory.Seen{ID: "a"}), noon.Add(inventory.Retell))
	if diff := cmp.Diff([]string{"target_changed b", "target_changed c", "target_changed d", "target_changed a"}, kinds(again)); diff != "" {
		t.Errorf("told before the log forgets it (-want +got):\n%s", diff)
	}
}

func TestTheNumberOfTargetsIsBounded(t *testing.T) {
	inv := inventory.New("default", 3)
	first := inv.List(endpoint, seen("a", "b", "c", "d", "e"), noon)
	if diff := cmp.Diff([]string{"target_discovered a", "target_discovered b", "target_discovered c"}, kinds(first)); diff != "" || first.Refused != 2 || len(first.Added) != 3 {
		t.Errorf("refused %d, added %d, want 2 and 3; events (-want +got):\n%s", first.Refused, len(first.Added), diff)
	}
	if out := inv.List(pod, []inventory.Seen{inventory.FromPod(runpod.Pod{ID: "p"})}, noon); out.Refused != 1 || out.Events != nil {
		t.Errorf("a pod beyond the bound: refused %d, told %v", out.Refused, out.Events)
	}
	// The order of the list changes nothing for those that are watched.
	if out := inv.List(endpoint, seen("e", "d", "c", "b", "a"), noon); out.Refused != 2 || out.Events != nil {
		t.Errorf("the same list in another order: refused %d, told %v", out.Refused, out.Events)
	}
	for range 3 {
		inv.List(endpoint, seen("b", "c", "d", "e"), noon)
	}
	inv.Answered(key("a"), false, noon)
	out := inv.List(endpoint, seen("b", "c", "d", "e"), noon)
	if diff := cmp.Diff([]string{"target_discovered d"}, kinds(out)); diff != "" || out.Refused != 1 {
		t.Errorf("after a removal: refused %d, want 1; events (-want +got):\n%s", out.Refused, diff)
	}

	lowered := inventory.New("default", 1)
	for _, e := range first.Events {
		lowered.Replay(e, noon)
	}
	if out := lowered.List(endpoint, seen("a", "b", "c", "d"), noon); lowered.Len() != 3 || out.Refused != 1 || out.Events != nil {
		t.Errorf("under a lower bound: %d targets, refused %d, told %v; want the three that the log knows", lowered.Len(), out.Refused, out.Events)
	}
}

func TestWhatCouldNotBeToldIsToldByTheNextList(t *testing.T) {
	inv := inventory.New("default", most)
	untold := func(out inventory.Outcome) {
		for _, e := range out.Events {
			inv.Untold(e)
		}
	}
	untold(inv.List(endpoint, seen("a", "b"), noon))
	again := inv.List(endpoint, seen("a", "b"), noon)
	if diff := cmp.Diff([]string{"target_changed a", "target_changed b"}, kinds(again)); diff != "" || again.Added != nil {
		t.Errorf("after discoveries that found no room (-want +got):\n%s", diff)
	}
	for range 3 {
		inv.List(endpoint, seen("b"), noon)
	}
	untold(inv.Answered(key("a"), false, noon))
	if out := inv.List(endpoint, seen("b"), noon); len(out.Doubtful) != 1 {
		t.Errorf("what was not told to be gone is not doubted again: %v", out.Doubtful)
	}
	if diff := cmp.Diff([]string{"target_removed a"}, kinds(inv.Answered(key("a"), false, noon))); diff != "" {
		t.Errorf("the removal, again (-want +got):\n%s", diff)
	}
	inv.List(endpoint, seen(many(20)...), noon)
	untold(inv.List(endpoint, seen("b"), noon))
	if diff := cmp.Diff([]string{"inventory_shrunk default"}, kinds(inv.List(endpoint, seen("b"), noon))); diff != "" {
		t.Errorf("a loss that could not be told (-want +got):\n%s", diff)
	}
}

func TestALossThatIsSeenAfterTheQuestionKeepsItsTargets(t *testing.T) {
	inv := inventory.New("default", most)
	inv.List(endpoint, seen(many(20)...), noon)
	for range 3 {
		inv.List(endpoint, seen(many(19)...), noon) // one is gone
	}
	inv.List(endpoint, nil, noon) // and now all are, before RunPod has answered about the one
	if out := inv.Answered(key("ep19"), false, noon); out.Events != nil || inv.Len() != 20 {
		t.Errorf("told %v with %d targets left, want all kept", kinds(out), inv.Len())
	}
}

func TestATargetThatComesBackIsNewsToTheLog(t *testing.T) {
	inv := inventory.New("default", most)
	before := inv.List(endpoint, seen("a"), noon).Events[0]
	for range 3 {
		inv.List(endpoint, nil, noon)
	}
	inv.Answered(key("a"), false, noon)
	after := inv.List(endpoint, seen("a"), noon.Add(time.Minute))
	if diff := cmp.Diff([]string{"target_discovered a"}, kinds(after)); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
	if after.Events[0].GetId() == before.GetId() {
		t.Error("the second discovery has the id of the first: the log would drop it")
	}
}

func TestALargeLossIsDoubted(t *testing.T) {
	for name, test := range map[string]struct {
		known, left int
		shrunk      bool
	}{
		"one of ten is a removal":                 {10, 9, false},
		"two of two are deleted by hand":          {2, 0, false},
		"two of ten are a fifth, and not more":    {10, 8, false},
		"three of fifteen are a fifth":            {15, 12, false},
		"three of ten are more":                   {10, 7, true},
		"three of three are all":                  {3, 0, true},
		"an empty list of many is a broken list":  {40, 0, true},
		"nine of forty are more than a fifth":     {40, 31, true},
		"eight of forty are a fifth, not a break": {40, 32, false},
	} {
		t.Run(name, func(t *testing.T) {
			inv := inventory.New("default", most)
			inv.List(endpoint, seen(many(test.known)...), noon)
			var shrunk, doubted int
			for range 5 {
				out := inv.List(endpoint, seen(many(test.left)...), noon)
				doubted += len(out.Doubtful)
				for _, e := range out.Events {
					if s := e.GetInventoryShrunk(); s == nil || s.GetOver() || s.GetKnown() != int64(test.known) || s.GetVanished() != int64(test.known-test.left) {
						t.Errorf("told %v", e)
					}
					shrunk++
				}
			}
			if got := shrunk == 1; got != test.shrunk || shrunk > 1 {
				t.Errorf("told %d times that the inventory shrunk", shrunk)
			}
			if (doubted == 0) != test.shrunk {
				t.Errorf("%d targets doubted", doubted)
			}
		})
	}
}

func TestALossIsOverOnceWhenTheTargetsAreBack(t *testing.T) {
	inv := inventory.New("default", most)
	inv.List(endpoint, seen(many(10)...), noon)
	inv.List(endpoint, nil, noon)
	back := inv.List(endpoint, seen(many(9)...), noon)
	if len(back.Events) != 1 || !back.Events[0].GetInventoryShrunk().GetOver() {
		t.Fatalf("told %v, want that it is over", back.Events)
	}
	if more := inv.List(endpoint, seen(many(9)...), noon); more.Events != nil {
		t.Errorf("told again: %v", more.Events)
	}
	if out := inv.List(endpoint, seen(many(9)...), noon); len(out.Doubtful) != 1 {
		t.Errorf("the one that stayed away is not doubted: %v", out.Doubtful)
	}
}

func TestALossIsGivenUpAfterADay(t *testing.T) {
	inv := inventory.New("default", most)
	inv.List(endpoint, seen(many(5)...), noon)
	for i := range 5 {
		inv.List(endpoint, nil, noon.Add(time.Duration(i)*time.Minute))
	}
	if out := inv.List(endpoint, nil, noon.Add(inventory.Patience-time.Second)); out.Doubtful != nil {
		t.Errorf("doubted before a day: %v", out.Doubtful)
	}
	out := inv.List(endpoint, nil, noon.Add(inventory.Patience))
	if len(out.Doubtful) != 5 {
		t.Fatalf("doubted %v after a day, want all", out.Doubtful)
	}
	var told []string
	for _, k := range out.Doubtful {
		told = append(told, kinds(inv.Answered(k, false, noon.Add(inventory.Patience)))...)
	}
	if !slices.Contains(told, "inventory_shrunk default") || inv.Len() != 0 {
		t.Errorf("told %v with %d targets left, want all removed and the loss over", told, inv.Len())
	}
}

// replayed returns the inventory that a restart reads from the log.
func replayed(events []*eventv1.Event) *inventory.Inventory {
	inv := inventory.New("default", most)
	for _, e := range events {
		inv.Replay(e, noon)
	}
	return inv
}

func TestARestartContinues(t *testing.T) {
	inv := inventory.New("default", most)
	log := inv.List(endpoint, seen(many(10)...), noon).Events
	log = append(log, inv.List(pod, []inventory.Seen{inventory.FromPod(runpod.Pod{ID: "p"})}, noon).Events...)

	t.Run("and discovers nothing again", func(t *testing.T) {
		again := replayed(log)
		if out := again.List(endpoint, seen(many(10)...), noon); out.Events != nil {
			t.Errorf("told %v", out.Events)
		}
		if diff := cmp.Diff(len(inv.Targets()), len(again.Targets())); diff != "" {
			t.Errorf("targets (-want +got):\n%s", diff)
		}
	})
	t.Run("and ignores another account", func(t *testing.T) {
		other := inventory.New("other", most)
		for _, e := range log {
			other.Replay(e, noon)
		}
		if other.Len() != 0 {
			t.Errorf("took %d targets of another account", other.Len())
		}
	})
	shrunk := inv.List(endpoint, nil, noon)
	log = append(log, shrunk.Events...)
	t.Run("and tells that a loss is over when all kinds were listed", func(t *testing.T) {
		again := replayed(log)
		if out := again.List(pod, []inventory.Seen{inventory.FromPod(runpod.Pod{ID: "p"})}, noon); out.Events != nil {
			t.Errorf("over before the endpoints were listed: %v", out.Events)
		}
		out := again.List(endpoint, seen(many(10)...), noon)
		if len(out.Events) != 1 || !out.Events[0].GetInventoryShrunk().GetOver() {
			t.Errorf("told %v", out.Events)
		}
	})
	t.Run("and does not tell again of a loss that goes on", func(t *testing.T) {
		if out := replayed(log).List(endpoint, nil, noon); out.Events != nil {
			t.Errorf("told %v", out.Events)
		}
	})
	t.Run("and has forgotten what was removed", func(t *testing.T) {
		removed := append(slices.Clone(log[:11]), &eventv1.Event{
			Id: "x", Target: log[0].GetTarget(), Fact: &eventv1.Event_TargetRemoved{TargetRemoved: &eventv1.TargetRemoved{}},
		})
		again := replayed(removed)
		out := again.List(endpoint, seen(many(10)...), noon)
		if diff := cmp.Diff([]string{"target_discovered ep00"}, kinds(out)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestATargetIsToldAgainBeforeTheLogForgetsIt(t *testing.T) {
	inv := inventory.New("default", most)
	inv.List(endpoint, seen("a"), noon)
	out := inv.List(endpoint, seen("a"), noon.Add(inventory.Retell))
	if diff := cmp.Diff([]string{"target_changed a"}, kinds(out)); diff != "" || out.Added != nil {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if out := inv.List(endpoint, seen("a"), noon.Add(inventory.Retell+time.Minute)); out.Events != nil {
		t.Errorf("told again at once: %v", out.Events)
	}
}

func TestSpecsHoldWhatIsThereAndAreBounded(t *testing.T) {
	zones := make([]string, 500)
	for i := range zones {
		zones[i] = fmt.Sprintf("zone-%03d", 500-i)
	}
	s := inventory.FromEndpoint(runpod.Endpoint{
		ID: "a", Name: strings.Repeat("n", 1000), Type: runpod.LoadBalancer,
		Image: "https://user:hunter2@registry/app", DataCenterIDs: zones,
	})
	got := s.Spec.GetEndpoint()
	if got.WorkersMax != nil || got.GetIdleTimeout() != nil || got.GetExecutionTimeout() != nil {
		t.Errorf("what was absent is there: %v", got)
	}
	if strings.Contains(got.GetImage(), "hunter2") {
		t.Errorf("image %q shows a password", got.GetImage())
	}
	if len(s.Name) > 256 || len(got.GetDataCenters()) > 50 || got.GetDataCenters()[0] != "zone-001" {
		t.Errorf("name of %d bytes, %d data centres, the first %s", len(s.Name), len(got.GetDataCenters()), got.GetDataCenters()[0])
	}
	if (inventory.Target{Key: key("a"), Spec: s.Spec}).Polled() {
		t.Error("a load balancer is polled")
	}
	two := int64(2)
	p := inventory.FromPod(runpod.Pod{ID: "p", GPU: &runpod.PodGPU{ID: "H200", Count: &two}, Cloud: "SECURE"}).Spec.GetPod()
	if p.GetGpuCount() != 2 || p.GetGpuType() != "H200" || p.GetCloud() != "SECURE" {
		t.Errorf("pod is %v", p)
	}
}
