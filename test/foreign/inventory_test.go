package foreign

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"
)

// seedVariable chooses another inventory than the usual one.
const seedVariable = "TOCSIN_FOREIGN_SEED"

func newGenerator(t *testing.T) *generator {
	t.Helper()
	seed := uint64(1)
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d (%s)", seed, seedVariable)
	return &generator{spec: loadSpec(t), random: rand.New(rand.NewPCG(seed, 0))}
}

// TestAnInventoryAsTheOpenAPIFileAllowsIt follows an account from nothing to 400
// targets, through changes and removals, to a list that lacks most of it.
func TestAnInventoryAsTheOpenAPIFileAllowsIt(t *testing.T) {
	t.Parallel()
	g := newGenerator(t)
	w := newWorld(t, 1000)
	trap := newTrap(t)
	fresh := func(endpoints, pods int) ([]map[string]any, []map[string]any) {
		all := g.inventory(t, "Endpoint", endpoints)
		for i, e := range all {
			w.direct(e, i, trap)
		}
		return all, g.inventory(t, "Pod", pods)
	}

	s := w.up(t)
	query := reflectOn(t, s.query, queryToken)
	eventually(t, "an empty account is read", func() string {
		if w.rest.listed() < 4 {
			return "no lists yet"
		}
		return unlike(query.targets(t, "TARGET_KIND_ACCOUNT"), "default")
	})
	if n := len(query.targets(t, "TARGET_KIND_ENDPOINT")) + len(query.targets(t, "TARGET_KIND_POD")); n != 0 {
		t.Errorf("%d targets in an empty account", n)
	}

	endpoints, pods := fresh(200, 200)
	w.rest.set(endpoints, pods)
	w.awaitFleet(t, s, query, endpoints, pods)
	quota := scrapeOf(t, s.metrics, ingestToken)
	if left, _ := quota.value("tocsin_collector_quota_left_calls", "window", "minute"); left < 59000 || left > 59321 {
		t.Errorf("%v calls of the minute are left, want nearly 59321", left)
	}
	if limit, _ := quota.value("tocsin_collector_quota_limit_calls", "window", "hour"); limit != 3000000 {
		t.Errorf("an hour allows %v calls, want 3000000", limit)
	}
	for _, base := range []string{s.metrics, s.alerterHTTP, s.notifierHTTP} {
		token := queryToken
		if base == s.metrics {
			token = ingestToken
		}
		scrapeOf(t, base, token).lint(t)
	}

	// A tenth comes and goes, and names change.
	more, morePods := fresh(20, 20)
	endpoints, pods = append(endpoints[20:], more...), append(pods[20:], morePods...)
	for _, listed := range [][]map[string]any{endpoints, pods} {
		for i := range 20 {
			listed[i] = maps.Clone(listed[i]) // what is served may be read at this moment
			listed[i]["name"] = "renamed " + g.word()
		}
	}
	w.rest.set(endpoints, pods)
	w.awaitFleet(t, s, query, endpoints, pods)

	// Most of it is missing at once: that is doubted, and all of it kept.
	w.rest.set(endpoints[:50], pods[:50])
	shrunk := func(want string) func() string {
		return func() string {
			account := query.targets(t, "TARGET_KIND_ACCOUNT")["default"]
			if got := field(account, "inventory.shrunk"); got != want {
				return fmt.Sprintf("inventory.shrunk is %q, want %q: %v", got, want, list(account, "values"))
			}
			return ""
		}
	}
	eventually(t, "the loss is told", shrunk("true"))
	from := w.rest.listed()
	eventually(t, "ten more lists", func() string {
		if n := w.rest.listed() - from; n < 10 {
			return fmt.Sprintf("%d so far", n)
		}
		return ""
	})
	w.awaitFleet(t, s, query, endpoints, pods)
	w.rest.set(endpoints, pods)
	eventually(t, "the loss is over", shrunk("false"))

	if code := s.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}
	w.searchForSecrets(t, s.Output())
}

// newTrap is a host that the operator did not configure.
func newTrap(t *testing.T) string {
	t.Helper()
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	t.Cleanup(func() {
		server.Close()
		if n := calls.Load(); n > 0 {
			t.Errorf("a host that only the inventory names was called %d times", n)
		}
	})
	return server.URL
}

// direct gives an endpoint that has URLs those of a server: of ours, or of one
// that must not be trusted.
func (w *world) direct(e map[string]any, i int, trap string) {
	if e["requestUrls"] == nil {
		return
	}
	base := w.runtime.url
	if i%3 == 0 {
		base = trap
	}
	id := url.PathEscape(e["id"].(string))
	if e["type"] == "LOAD_BALANCER" {
		e["requestUrls"] = map[string]any{"base": base, "health": base + "/ping"}
		return
	}
	urls := map[string]any{}
	for _, name := range []string{"run", "runSync", "status", "stream", "cancel", "retry", "purgeQueue", "health"} {
		urls[name] = base + "/v2/" + id + "/" + name
	}
	e["requestUrls"] = urls
}

// awaitFleet waits until the query API and the metrics show what the inventory
// holds, no more and no less.
func (w *world) awaitFleet(t *testing.T, s *system, query *remote, endpoints, pods []map[string]any) {
	t.Helper()
	eventually(t, "the query API shows the inventory", func() string {
		known := query.targets(t, "TARGET_KIND_ENDPOINT")
		for _, e := range endpoints {
			if wrong := unlikeEndpoint(known[e["id"].(string)], e); wrong != "" {
				return fmt.Sprintf("endpoint %q: %s", e["id"], wrong)
			}
		}
		knownPods := query.targets(t, "TARGET_KIND_POD")
		for _, p := range pods {
			if wrong := unlikePod(knownPods[p["id"].(string)], p); wrong != "" {
				return fmt.Sprintf("pod %q: %s", p["id"], wrong)
			}
		}
		if len(known) != len(endpoints) || len(knownPods) != len(pods) {
			return fmt.Sprintf("%d endpoints and %d pods, want %d and %d", len(known), len(knownPods), len(endpoints), len(pods))
		}
		return ""
	})
	eventually(t, "the metrics show the inventory", func() string {
		page := scrapeOf(t, s.metrics, ingestToken)
		for _, e := range endpoints {
			_, series := page.value("runpod_queue_depth", "endpoint_id", e["id"].(string))
			if want := map[bool]int{true: 0, false: 1}[e["type"] == "LOAD_BALANCER"]; series != want {
				return fmt.Sprintf("endpoint %q has %d queue depths, want %d", e["id"], series, want)
			}
		}
		for _, p := range pods {
			if wrong := unlikePodSeries(page, p); wrong != "" {
				return fmt.Sprintf("pod %q: %s; RunPod says cost %v, runtime %v", p["id"], wrong, p["cost"], p["runtime"])
			}
		}
		return ""
	})
	for _, e := range endpoints {
		health := url.PathEscape(e["id"].(string)) + "/health"
		if e["type"] == "LOAD_BALANCER" && w.runtime.times(health) > 0 {
			t.Errorf("load balancer %q was asked for its queue", e["id"])
		}
	}
}

// unlike says which of the ids is missing.
func unlike(known map[string]map[string]any, ids ...string) string {
	for _, id := range ids {
		if known[id] == nil {
			return id + " is not known"
		}
	}
	return ""
}

func unlikeEndpoint(known, served map[string]any) string {
	spec := at(known, "spec", "endpoint")
	kind := "ENDPOINT_TYPE_QUEUE"
	if served["type"] == "LOAD_BALANCER" {
		kind = "ENDPOINT_TYPE_LOAD_BALANCER"
	}
	switch {
	case known == nil:
		return "not known"
	case !sameName(text(known, "target", "name"), served["name"]):
		return fmt.Sprintf("its name is %q, want %q", text(known, "target", "name"), served["name"])
	case text(spec, "type") != kind:
		return fmt.Sprintf("its type is %v, want %s", at(spec, "type"), kind)
	case text(spec, "workersMax") != count(at(served, "workers", "max")), text(spec, "workersMin") != count(at(served, "workers", "min")):
		return fmt.Sprintf("its workers are %v to %v, want %v", at(spec, "workersMin"), at(spec, "workersMax"), served["workers"])
	case kind == "ENDPOINT_TYPE_QUEUE" && field(known, "jobs.in_queue") != "0":
		return fmt.Sprintf("jobs.in_queue is %q", field(known, "jobs.in_queue"))
	}
	return ""
}

func unlikePod(known, served map[string]any) string {
	switch {
	case known == nil:
		return "not known"
	case !sameName(text(known, "target", "name"), served["name"]):
		return fmt.Sprintf("its name is %q, want %q", text(known, "target", "name"), served["name"])
	case field(known, "pod.status") != served["status"]:
		return fmt.Sprintf("its status is %q, want %q", field(known, "pod.status"), served["status"])
	case at(known, "spec", "pod") == nil:
		return "it has no settings"
	}
	return ""
}

// unlikePodSeries compares a pod's series: a figure that RunPod did not send, or
// that can be none, has no series.
func unlikePodSeries(page scrape, served map[string]any) string {
	id, _ := served["id"].(string)
	want := map[string]int{}
	expect := func(name string, v any) {
		if f, ok := number(v); ok && f >= 0 {
			want[name]++
		}
	}
	expect("runpod_pod_cost_dollars_per_hour", served["cost"])
	expect("runpod_pod_cpu_utilization_percent", at(served, "runtime", "cpu", "util"))
	expect("runpod_pod_memory_utilization_percent", at(served, "runtime", "memory", "util"))
	if seconds, ok := number(at(served, "runtime", "uptime")); ok && seconds < 3.15e9 { // a century
		expect("runpod_pod_uptime_seconds", at(served, "runtime", "uptime"))
	}
	for _, gpu := range list(served, "runtime", "gpus") {
		expect("runpod_gpu_utilization_percent", gpu["util"])
	}
	for _, name := range []string{
		"runpod_pod_cost_dollars_per_hour", "runpod_pod_cpu_utilization_percent", "runpod_pod_memory_utilization_percent",
		"runpod_pod_uptime_seconds", "runpod_gpu_utilization_percent",
	} {
		if _, series := page.value(name, "pod_id", id); series != want[name] {
			return fmt.Sprintf("%d series %s, want %d", series, name, want[name])
		}
	}
	if _, series := page.value("runpod_pod_info", "pod_id", id, "status", fmt.Sprint(served["status"])); series != 1 {
		return "no runpod_pod_info with its status"
	}
	return ""
}

// sameName compares a name with one that may be cut where it is long.
func sameName(got string, served any) bool {
	want, _ := served.(string)
	return got == want || len(want) > 200 && len(got) >= 200 && strings.HasPrefix(want, got) && utf8.ValidString(got)
}

// count renders a JSON integer as protobuf's JSON does, "" when 64 bits cannot
// hold it.
func count(v any) string {
	n, ok := new(big.Float).SetString(fmt.Sprint(v))
	if !ok {
		return ""
	}
	whole, _ := n.Int(nil)
	if !whole.IsInt64() {
		return ""
	}
	return whole.String()
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case json.Number:
		f, err := n.Float64()
		return f, err == nil
	case float64:
		return n, true
	}
	return 0, false
}
