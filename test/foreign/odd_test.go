package foreign

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// listsMore waits until both lists were read n times more.
func (w *world) listsMore(t *testing.T, n int) {
	t.Helper()
	from := w.rest.listed()
	eventually(t, fmt.Sprintf("%d more lists", 2*n), func() string {
		if more := w.rest.listed() - from; more < 2*n {
			return fmt.Sprintf("%d so far", more)
		}
		return ""
	})
}

// counts waits until a counter of the collector has reached n.
func (s *system) counts(t *testing.T, what string, n float64, name string, labels ...string) {
	t.Helper()
	eventually(t, what, func() string {
		if got, _ := scrapeOf(t, s.metrics, ingestToken).value(name, labels...); got < n {
			return fmt.Sprintf("%v were counted, want %v", got, n)
		}
		return ""
	})
}

// TestAnInventoryWithEntriesThatAreNone gives, among good entries, some of types
// that RunPod's description does not allow: they cost the others nothing, and what
// is known of them stays.
func TestAnInventoryWithEntriesThatAreNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1000)
	odd := endpoint("odd", "workers", map[string]any{"min": 0, "max": "three"})
	endpoints := []map[string]any{
		endpoint("good"), odd,
		endpoint("untyped", "type", nil, "requestUrls", map[string]any{"base": "https://untyped.api.runpod.ai", "health": "https://untyped.api.runpod.ai/ping"}),
		endpoint("later", "type", "STREAM"),
		endpoint("unnamed", "name", nil, "gpu", nil, "cpu", []any{map[string]any{"id": "cpu5c", "vcpuCount": 4, "memory": 8}}, "scaling", nil, "workers", nil, "image", nil),
	}
	pods := []map[string]any{
		{"id": "quoted", "name": "quoted", "status": "RUNNING", "cost": "0.74", "runtime": map[string]any{"gpus": []any{map[string]any{"util": 3.0}}}},
		{"id": "broken", "name": "broken", "status": []any{}, "cost": 1},
		{"id": "novel", "name": "novel", "status": "HIBERNATING", "cost": 0.25, "runtime": nil},
	}
	w.rest.set(endpoints, pods)
	s := w.up(t)
	query := reflectOn(t, s.query, queryToken)
	eventually(t, "what can be read is known", func() string {
		known, knownPods := query.targets(t, "TARGET_KIND_ENDPOINT"), query.targets(t, "TARGET_KIND_POD")
		if wrong := unlike(known, "good", "untyped", "later", "unnamed") + unlike(knownPods, "quoted", "novel"); wrong != "" {
			return wrong
		}
		return unequal(field(known["good"], "jobs.in_queue")+field(known["unnamed"], "jobs.in_queue")+text(known["untyped"], "spec", "endpoint", "type")+
			field(knownPods["novel"], "pod.status"), "00ENDPOINT_TYPE_LOAD_BALANCERHIBERNATING")
	})
	w.listsMore(t, 3)
	known, knownPods := query.targets(t, "TARGET_KIND_ENDPOINT"), query.targets(t, "TARGET_KIND_POD")
	if known["odd"] != nil || knownPods["broken"] != nil {
		t.Errorf("something was guessed of what cannot be read: %v %v", known["odd"], knownPods["broken"])
	}
	for _, id := range []string{"untyped", "later", "odd"} {
		if n := w.runtime.times(id + "/health"); n > 0 {
			t.Errorf("%s was asked for its queue %d times", id, n)
		}
	}
	for _, kind := range []string{"endpoints", "pods"} {
		s.counts(t, "one unreadable entry in each of three lists of "+kind, 3, "tocsin_collector_entries_unreadable_total", "kind", kind)
	}
	page := scrapeOf(t, s.metrics, ingestToken)
	page.lint(t)
	if cost, series := page.value("runpod_pod_cost_dollars_per_hour", "pod_id", "quoted"); cost != 0.74 || series != 1 {
		t.Errorf("a cost in quotes is %v in %d series", cost, series)
	}
	for _, kind := range []string{"endpoints", "pods"} {
		if n, _ := page.value("tocsin_collector_polls_total", "kind", kind, "result", "malformed"); n > 0 {
			t.Errorf("%v lists of %s failed by one entry", n, kind)
		}
	}
	s.WaitFor(0, "1 of 5 cannot be read", "workers.max is a JSON string")

	// Once it can be read it is known, and stays so when it cannot any more.
	w.rest.set(append([]map[string]any{endpoint("odd")}, endpoints[:1]...), pods[:1])
	eventually(t, "the odd endpoint is polled", func() string {
		return unequal(field(query.targets(t, "TARGET_KIND_ENDPOINT")["odd"], "jobs.in_queue"), "0")
	})
	w.rest.set(endpoints, pods)
	polled := w.runtime.times("odd/health")
	w.listsMore(t, 6)
	eventually(t, "it is polled on", func() string {
		if n := w.runtime.times("odd/health") - polled; n < 3 {
			return fmt.Sprintf("%d polls", n)
		}
		return ""
	})
	if now := query.targets(t, "TARGET_KIND_ENDPOINT")["odd"]; text(now, "spec", "endpoint", "workersMax") != "3" || text(now, "target", "name") != "plain odd" {
		t.Errorf("of the odd endpoint is known %v, want what was", now)
	}
	if code := s.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}
	w.searchForSecrets(t, s.Output(), page.text)
}

// TestQuotaHeadersOfEverySort has a control plane say of its quota what a broken or
// hostile one could: none of it ends the polls, nor spoils the metrics.
func TestQuotaHeadersOfEverySort(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1000)
	w.rest.set([]map[string]any{endpoint("good")}, nil)
	s := w.up(t)
	for name, headers := range map[string][]string{
		"none":               {},
		"no text":            {"RateLimit", "\xff\xfe;r=1;t=60, \"\xc3\x28\";r=0;t=60", "RateLimit-Policy", "\xff;q=1;w=1"},
		"no list":            {"RateLimit", `"minute";r=0;t=`, "RateLimit-Policy", ",,,"},
		"an older draft":     {"RateLimit", "limit=100, remaining=50, reset=5", "X-RateLimit-Remaining", "0"},
		"numbers beyond all": {"RateLimit", `"minute";r=99999999999999999999;t=99999999999999999999`, "RateLimit-Policy", `"minute";q=-1;w=-1`},
		"an end long ago":    {"RateLimit", `"minute";r=0;t=0`, "RateLimit-Policy", `"minute";q=60;w=0`},
		// Windows with calls left for all lists of this test: of nine, the tenth list would rightly wait.
		"a hundred windows":   {"RateLimit", strings.Repeat(`"x";r=9000;t=9, `, 99) + `"y";r=9000;t=9`},
		"a name of a page":    {"RateLimit", `"` + strings.Repeat("n", 3000) + `";r=9000;t=9`},
		"a pause on a 200":    {"Retry-After", "86400"},
		"a pause in the past": {"Retry-After", "Mon, 23 Nov 1970 11:00:20 GMT"},
	} {
		w.rest.misbehave(func(rw http.ResponseWriter, req *http.Request) {
			for i := 0; i < len(headers); i += 2 {
				rw.Header().Add(headers[i], headers[i+1])
			}
			w.rest.serve(rw, req)
		})
		w.listsMore(t, 2)
		page := scrapeOf(t, s.metrics, ingestToken)
		page.lint(t)
		if n, _ := page.value("tocsin_collector_polls_total", "kind", "pods", "result", "rate_limited"); n > 0 {
			t.Errorf("%s: %v lists were held back", name, n)
		}
	}
	// A window that ends a minute from now is no reason to wait for a day.
	w.rest.misbehave(func(rw http.ResponseWriter, req *http.Request) {
		rw.Header().Set("RateLimit", `"second";r=0;t=86400`)
		rw.Header().Set("RateLimit-Policy", `"second";q=1;w=1`)
		w.rest.serve(rw, req)
	})
	w.listsMore(t, 2)
	if code := s.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}
}

// TestMoreTargetsThanAreWatched gives an account of nine targets to a Tocsin that
// watches five.
func TestMoreTargetsThanAreWatched(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1000)
	w.env = []string{"TOCSIN_COLLECTOR_MAX_TARGETS=5"}
	w.rest.set([]map[string]any{endpoint("a"), endpoint("b"), endpoint("c")}, nil)
	s := w.up(t)
	query := reflectOn(t, s.query, queryToken)
	eventually(t, "three endpoints are known", func() string { return unlike(query.targets(t, "TARGET_KIND_ENDPOINT"), "a", "b", "c") })
	var endpoints []map[string]any
	for _, id := range []string{"i", "h", "g", "f", "e", "d", "c", "b", "a"} {
		endpoints = append(endpoints, endpoint(id))
	}
	w.rest.set(endpoints, nil)
	line := s.WaitFor(0, "4 of 9 are not watched", "collector.max_targets", "raise it")
	t.Log(line)
	eventually(t, "those that were listed first are known beside the three", func() string {
		return unlike(query.targets(t, "TARGET_KIND_ENDPOINT"), "a", "b", "c", "i", "h")
	})
	w.listsMore(t, 3)
	if n := len(query.targets(t, "TARGET_KIND_ENDPOINT")); n != 5 {
		t.Errorf("%d endpoints are known, want 5", n)
	}
	if n := w.runtime.times("d/health"); n > 0 {
		t.Errorf("an endpoint beyond the bound was polled %d times", n)
	}
	s.counts(t, "four refusals in each of three lists", 12, "tocsin_collector_targets_refused_total", "kind", "endpoints")
	if code := s.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}
}

// TestAnInventoryThatIsAnotherInEachList has a control plane make up each list, as
// one does that a tool made from RunPod's description.
func TestAnInventoryThatIsAnotherInEachList(t *testing.T) {
	t.Parallel()
	g := newGenerator(t)
	w := newWorld(t, 1000)
	w.env = []string{"TOCSIN_COLLECTOR_MAX_TARGETS=40"}
	// Fifty lists of each kind, of five entries each, before they come again.
	made := map[string][]map[string]any{"endpoints": g.inventory(t, "Endpoint", 250), "pods": g.inventory(t, "Pod", 250)}
	var mu sync.Mutex
	lists := 0
	w.rest.misbehave(func(rw http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		kind := "endpoints"
		if strings.HasPrefix(req.URL.Path, "/v2/pods") {
			kind = "pods"
		}
		five := made[kind][:5]
		made[kind] = append(made[kind][5:], five...)
		rw.Header().Set("Content-Type", "application/json")
		if strings.Count(req.URL.Path, "/") > 2 { // one of them alone: another one, of course
			_ = json.NewEncoder(rw).Encode(five[0])
			return
		}
		lists++
		_ = json.NewEncoder(rw).Encode(map[string]any{kind: five})
	})
	s := w.up(t)
	query := reflectOn(t, s.query, queryToken)
	eventually(t, "thirty lists", func() string {
		mu.Lock()
		defer mu.Unlock()
		if lists < 30 {
			return fmt.Sprintf("%d so far", lists)
		}
		return ""
	})
	eventually(t, "the loss is told", func() string {
		return unequal(field(query.targets(t, "TARGET_KIND_ACCOUNT")["default"], "inventory.shrunk"), "true")
	})
	eventually(t, "as many targets are known as are watched, and none removed", func() string {
		return unequal(fmt.Sprint(len(query.targets(t, "TARGET_KIND_ENDPOINT"))+len(query.targets(t, "TARGET_KIND_POD"))), "40")
	})
	scrapeOf(t, s.metrics, ingestToken).lint(t)
	if code := s.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}
	w.searchForSecrets(t, s.Output())
}
