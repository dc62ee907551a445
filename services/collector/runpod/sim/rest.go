package sim

import (
	"fmt"
	"net/http"
	"time"
)

// routes builds the handler of all APIs.
func (s *Sim) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, scope Scope, rest bool, h http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
			defer func() { s.calls.add(pattern, sw.status) }()
			if !s.refuse(sw, r, scope, rest) {
				h(sw, r)
			}
		})
	}
	handle("GET /v2/serverless", ScopeServerless, true, s.listEndpoints)
	handle("GET /v2/serverless/{id}", ScopeServerless, true, s.getEndpoint)
	handle("GET /v2/serverless/{id}/workers", ScopeServerless, true, s.listWorkers)
	handle("GET /v2/pods", ScopePods, true, s.listPods)
	handle("GET /v2/pods/{id}", ScopePods, true, s.getPod)
	handle("GET /runtime/v2/{id}/health", ScopeServerless, false, s.health)
	handle("POST /runtime/v2/{id}/run", ScopeServerless, false, s.run)
	handle("POST /runtime/v2/{id}/runsync", ScopeServerless, false, s.runSync)
	handle("GET /runtime/v2/{id}/status/{job}", ScopeServerless, false, s.status)
	handle("POST /runtime/v2/{id}/status/{job}", ScopeServerless, false, s.status)
	handle("POST /runtime/v2/{id}/cancel/{job}", ScopeServerless, false, s.cancel)
	handle("POST /runtime/v2/{id}/retry/{job}", ScopeServerless, false, s.retry)
	handle("POST /runtime/v2/{id}/purge-queue", ScopeServerless, false, s.purge)
	handle("/", "", true, func(w http.ResponseWriter, _ *http.Request) { problem(w, http.StatusNotFound, "resource not found") })
	return mux
}

type wireEndpoint struct {
	ID             string            `json:"id"`
	Name           string            `json:"name"`
	Type           string            `json:"type"`
	RequestURLs    any               `json:"requestUrls"`
	Image          string            `json:"image"`
	Args           string            `json:"args"`
	Disk           int               `json:"disk"`
	Ports          []string          `json:"ports"`
	Env            map[string]string `json:"env"`
	Registry       *string           `json:"registry"`
	GPU            *wireEndpointGPU  `json:"gpu"`
	CPU            []wireCPU         `json:"cpu,omitempty"`
	Workers        wireLimits        `json:"workers"`
	Scaling        any               `json:"scaling"`
	DataCenterIDs  []string          `json:"dataCenterIds"`
	NetworkVolumes []string          `json:"networkVolumes"`
	Timeout        int64             `json:"timeout"`
	FlashBoot      string            `json:"flashboot"`
	CreatedAt      time.Time         `json:"createdAt"`
}

type wireEndpointGPU struct {
	Pools   []string `json:"pools"`
	Count   int      `json:"count"`
	Allowed []string `json:"allowedCudaVersions"`
	Lowest  *string  `json:"minCudaVersion"`
}

type wireLimits struct {
	Min         int `json:"min"`
	Max         int `json:"max"`
	IdleTimeout int `json:"idleTimeout"`
}

type wireRequestURLs struct {
	Run        string `json:"run"`
	RunSync    string `json:"runSync"`
	Status     string `json:"status"`
	Stream     string `json:"stream"`
	Cancel     string `json:"cancel"`
	Retry      string `json:"retry"`
	PurgeQueue string `json:"purgeQueue"`
	Health     string `json:"health"`
}

// image names the container of an endpoint's workers.
func (e *endpoint) image() string { return "registry.example/" + e.spec.Name + ":42" }

// wire describes the endpoint at t to a caller that reached us at host; began is
// the instant of t = 0. It needs no state, so it does not advance it.
func (e *endpoint) wire(host string, began time.Time, t time.Duration) wireEndpoint {
	base := "http://" + host + "/runtime/v2/" + e.spec.ID
	w := wireEndpoint{
		ID: e.spec.ID, Name: e.spec.Name, Type: "QUEUE", Image: e.image(), Disk: 20, Ports: []string{"8000/http"},
		Env:     map[string]string{"API_TOKEN": "rpa_SIMULATEDENVSECRET"},
		Workers: wireLimits{Min: e.spec.MinWorkers, Max: e.spec.MaxWorkers, IdleTimeout: max(int(e.spec.IdleTimeout.Seconds()), 1)},
		RequestURLs: wireRequestURLs{
			Run: base + "/run", RunSync: base + "/runsync", Status: base + "/status/{job_id}", Stream: base + "/stream/{job_id}",
			Cancel: base + "/cancel/{job_id}", Retry: base + "/retry/{job_id}", PurgeQueue: base + "/purge-queue", Health: base + "/health",
		},
		Scaling:       map[string]any{"type": "QUEUE_DELAY", "queueDelay": 4},
		DataCenterIDs: []string{"US-KS-2"}, NetworkVolumes: []string{},
		Timeout: e.spec.Timeout.Milliseconds(), FlashBoot: "FLASHBOOT", CreatedAt: began.Add(-60 * 24 * time.Hour),
	}
	if e.spec.LoadBalancer {
		w.Type = "LOAD_BALANCER"
		w.RequestURLs = map[string]string{"base": "http://" + e.spec.ID + ".api.invalid", "health": "http://" + e.spec.ID + ".api.invalid/ping"}
		w.Scaling = map[string]any{"type": "REQUEST_COUNT", "requestCount": 4}
	}
	if _, closed := e.script.active(t, maxWorkersZero); closed {
		w.Workers.Min, w.Workers.Max = 0, 0
	}
	if len(e.spec.Pools) > 0 {
		w.GPU = &wireEndpointGPU{Pools: e.spec.Pools, Count: 1, Allowed: []string{}}
	} else {
		w.CPU = []wireCPU{{ID: "cpu5c", VCPUCount: 4, Memory: 16}}
	}
	return w
}

// exists reports whether the endpoint is there at t.
func (e *endpoint) exists(t time.Duration) bool {
	_, removed := e.script.active(t, removeEndpoint)
	return !removed
}

// listed reports whether the lists of the account hold id at t.
func (s *Sim) listed(id string, t time.Duration) bool {
	loss, ok := s.account.active(t, inventoryLoss)
	return !ok || draw(mix(s.opts.Seed, id), "loss") >= loss.rate
}

func (s *Sim) listEndpoints(w http.ResponseWriter, r *http.Request) {
	t := s.Elapsed()
	list := make([]wireEndpoint, 0, len(s.order.endpoints))
	for _, id := range s.order.endpoints {
		if e := s.endpoints[id]; e.exists(t) && s.listed(id, t) {
			list = append(list, e.wire(r.Host, s.opts.Start, t))
		}
	}
	answer(w, map[string]any{"endpoints": list})
}

// endpointOf returns the endpoint that the path names, or answers 404.
func (s *Sim) endpointOf(w http.ResponseWriter, r *http.Request) *endpoint {
	e := s.endpoints[r.PathValue("id")]
	if e == nil || !e.exists(s.Elapsed()) {
		problem(w, http.StatusNotFound, "endpoint not found")
		return nil
	}
	return e
}

func (s *Sim) getEndpoint(w http.ResponseWriter, r *http.Request) {
	if e := s.endpointOf(w, r); e != nil {
		answer(w, e.wire(r.Host, s.opts.Start, s.Elapsed()))
	}
}

type wireWorker struct {
	ID            string     `json:"id"`
	Status        string     `json:"status"`
	IsStale       bool       `json:"isStale"`
	Version       int        `json:"version"`
	GPUCount      int        `json:"gpuCount"`
	Image         string     `json:"image"`
	UptimeSeconds *int64     `json:"uptimeSeconds"`
	GPUTypeID     *string    `json:"gpuTypeId"`
	DataCenterID  *string    `json:"dataCenterId"`
	StartedAt     *time.Time `json:"startedAt"`
}

// wireWorkers describes the workers at now. Throttled ones have no machine.
func (e *endpoint) wireWorkers(began time.Time) []wireWorker {
	list := make([]wireWorker, 0, len(e.workers)+e.spec.ThrottledLeftover)
	for _, w := range e.workers {
		one := wireWorker{ID: w.id, Status: statusNames[w.state], Version: 42, Image: e.image()}
		if len(e.spec.Pools) > 0 {
			one.GPUCount = 1
		}
		if w.state != throttled {
			up, gpu, place, at := int64((e.now-w.born)/time.Second), "NVIDIA GeForce RTX 4090", "US-KS-2", began.Add(w.born)
			one.UptimeSeconds, one.DataCenterID, one.StartedAt = &up, &place, &at
			if one.GPUCount > 0 {
				one.GPUTypeID = &gpu
			}
		}
		list = append(list, one)
	}
	for i := range e.spec.ThrottledLeftover {
		list = append(list, wireWorker{ID: fmt.Sprintf("leftover%06d", i), Status: statusNames[throttled], Version: 42, Image: e.image()})
	}
	return list
}

func (s *Sim) listWorkers(w http.ResponseWriter, r *http.Request) {
	e := s.endpointOf(w, r)
	if e == nil {
		return
	}
	e.mu.Lock()
	e.advance(s.Elapsed())
	c, list := e.counts(), e.wireWorkers(s.opts.Start)
	e.mu.Unlock()
	answer(w, map[string]any{"endpointVersion": 42, "workers": list, "summary": map[string]int{
		"running": c.Running, "idle": c.Idle, "initializing": c.Initializing,
		"throttled": c.Throttled, "unhealthy": c.Unhealthy, "total": len(list),
	}})
}

func (s *Sim) listPods(w http.ResponseWriter, _ *http.Request) {
	t := s.Elapsed()
	list := make([]wirePod, 0, len(s.order.pods))
	for _, id := range s.order.pods {
		if s.listed(id, t) {
			list = append(list, s.pods[id].wire(s.opts.Start, t))
		}
	}
	answer(w, map[string]any{"pods": list})
}

func (s *Sim) getPod(w http.ResponseWriter, r *http.Request) {
	p := s.pods[r.PathValue("id")]
	if p == nil {
		problem(w, http.StatusNotFound, "pod not found")
		return
	}
	answer(w, p.wire(s.opts.Start, s.Elapsed()))
}
