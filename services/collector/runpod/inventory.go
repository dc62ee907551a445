package runpod

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// EndpointType says how an endpoint routes requests. Values that RunPod adds
// later are kept as they are.
type EndpointType string

// The endpoint types that RunPod documents.
const (
	// Queue endpoints take jobs through RunPod's queue.
	Queue EndpointType = "QUEUE"
	// LoadBalancer endpoints pass requests to their workers; they have no queue,
	// no jobs and no health of the runtime API.
	LoadBalancer EndpointType = "LOAD_BALANCER"
)

// Endpoint is a serverless endpoint as the inventory describes it.
type Endpoint struct {
	// ID is RunPod's id, never empty.
	ID string
	// Name is what the user called it; it may change.
	Name string
	// Type is "" when RunPod says it neither by name nor by the URLs that only a
	// load balancer has.
	Type EndpointType
	// HealthURL is where the inventory says its health is, "" when it does not.
	HealthURL string
	// Image is the container image, "" when absent.
	Image string
	// GPU is nil for CPU endpoints.
	GPU *EndpointGPU
	// MinWorkers and MaxWorkers are the bounds of the scaler, nil when absent.
	MinWorkers, MaxWorkers *int64
	// IdleTimeout is how long an idle worker stays, nil when absent.
	IdleTimeout *time.Duration
	// Scaling is the scaler's signal, nil when absent.
	Scaling *Scaling
	// DataCenterIDs are the data centres it may run in.
	DataCenterIDs []string
	// NetworkVolumeIDs are the volumes its workers mount.
	NetworkVolumeIDs []string
	// ExecutionTimeout bounds one job, nil when absent or unset (0).
	ExecutionTimeout *time.Duration
	// FlashBoot is OFF, FLASHBOOT or PRIORITY_FLASHBOOT, "" when absent.
	FlashBoot string
	// CreatedAt is nil when absent.
	CreatedAt *time.Time
}

// EndpointGPU says which GPUs the workers of an endpoint use.
type EndpointGPU struct {
	// Pools are the ids of the GPU pools, such as ADA_24.
	Pools []string
	// Count is the number of GPUs of each worker, nil when absent.
	Count *int64
}

// Scaling is the signal by which an endpoint adds workers.
type Scaling struct {
	// Type is QUEUE_DELAY or REQUEST_COUNT.
	Type string
	// QueueDelay is the target wait in the queue, nil for REQUEST_COUNT.
	QueueDelay *time.Duration
	// RequestCount is the target number of requests per worker, nil for
	// QUEUE_DELAY.
	RequestCount *int64
}

// PodStatus is the lifecycle state of a pod. Values that RunPod adds later are
// kept as they are.
type PodStatus string

// The pod states that RunPod documents.
const (
	// PodProvisioning means that a machine is being found.
	PodProvisioning PodStatus = "PROVISIONING"
	// PodStarting means that the container is starting.
	PodStarting PodStatus = "STARTING"
	// PodRunning means that the container runs.
	PodRunning PodStatus = "RUNNING"
	// PodExited means that the container is stopped.
	PodExited PodStatus = "EXITED"
	// PodError means that the container cannot recover.
	PodError PodStatus = "ERROR"
	// PodTerminated means that the pod is deleted.
	PodTerminated PodStatus = "TERMINATED"
)

// Pod is a pod as the inventory describes it.
type Pod struct {
	// ID is RunPod's id, never empty.
	ID string
	// Name is what the user called it; it may change.
	Name string
	// Status is never empty.
	Status PodStatus
	// Image is the container image, "" when absent.
	Image string
	// GPU is nil for CPU pods.
	GPU *PodGPU
	// Cloud is SECURE or COMMUNITY, "" when absent.
	Cloud string
	// DataCenterID is "" until the pod is placed.
	DataCenterID string
	// CostPerHour is what it costs now in US dollars per hour, 0 when stopped,
	// nil when absent.
	CostPerHour *float64
	// Runtime is nil unless the pod runs and RunPod knows its figures.
	Runtime *PodRuntime
	// CreatedAt is nil when absent.
	CreatedAt *time.Time
	// StartedAt is nil when absent or never started.
	StartedAt *time.Time
}

// PodGPU is the kind and number of a pod's GPUs.
type PodGPU struct {
	// ID is RunPod's name of the GPU type, such as "NVIDIA GeForce RTX 4090".
	ID string
	// Count is nil when absent.
	Count *int64
}

// PodRuntime are the live figures of a running pod. Percentages run from 0 to
// 100; a CPU may exceed it. A negative figure, which RunPod uses for "not
// known", is absent.
type PodRuntime struct {
	// Uptime is the time since the container started, nil when absent.
	Uptime *time.Duration
	// GPUs has one entry per GPU. It is nil when RunPod did not say, which is
	// not the same as an idle GPU.
	GPUs []GPUUtilization
	// CPUPercent is nil when absent.
	CPUPercent *float64
	// MemoryPercent is nil when absent.
	MemoryPercent *float64
}

// GPUUtilization are the live figures of one GPU, in percent.
type GPUUtilization struct {
	// UtilPercent is nil when absent.
	UtilPercent *float64
	// MemoryPercent is nil when absent.
	MemoryPercent *float64
}

// wireEndpoint names the parts of an endpoint that are decoded. Its env, args
// and registry may hold secrets and are left out on purpose.
type wireEndpoint struct {
	ID          string       `json:"id"`
	Name        string       `json:"name"`
	Type        EndpointType `json:"type"`
	RequestURLs *struct {
		Run    string `json:"run"`  // of queue endpoints
		Base   string `json:"base"` // of load balancers
		Health string `json:"health"`
	} `json:"requestUrls"`
	Image string `json:"image"`
	GPU   *struct {
		Pools few[string] `json:"pools"`
		Count whole       `json:"count"`
	} `json:"gpu"`
	Workers struct {
		Min         whole  `json:"min"`
		Max         whole  `json:"max"`
		IdleTimeout figure `json:"idleTimeout"` // seconds
	} `json:"workers"`
	Scaling *struct {
		Type         string `json:"type"`
		QueueDelay   figure `json:"queueDelay"` // seconds
		RequestCount whole  `json:"requestCount"`
	} `json:"scaling"`
	DataCenterIDs  few[string] `json:"dataCenterIds"`
	NetworkVolumes few[string] `json:"networkVolumes"`
	Timeout        figure      `json:"timeout"` // milliseconds, 0 when unset
	FlashBoot      string      `json:"flashboot"`
	CreatedAt      instant     `json:"createdAt"`
}

func (w wireEndpoint) endpoint() (Endpoint, error) {
	if err := possibleID(w.ID); err != nil {
		return Endpoint{}, err
	}
	if negative(w.Workers.Min.n) || negative(w.Workers.Max.n) {
		return Endpoint{}, errors.New("workers: a bound is negative")
	}
	e := Endpoint{
		ID: w.ID, Name: w.Name, Type: w.Type, Image: w.Image,
		MinWorkers: w.Workers.Min.n, MaxWorkers: w.Workers.Max.n,
		IdleTimeout:   duration(w.Workers.IdleTimeout.n, time.Second),
		DataCenterIDs: w.DataCenterIDs, NetworkVolumeIDs: w.NetworkVolumes,
		FlashBoot: w.FlashBoot, CreatedAt: w.CreatedAt.at,
	}
	if w.RequestURLs != nil {
		e.HealthURL = w.RequestURLs.Health
		if e.Type == "" && w.RequestURLs.Run == "" && w.RequestURLs.Base != "" {
			e.Type = LoadBalancer // type is optional, and the URLs are those of its type
		}
	}
	if w.GPU != nil {
		e.GPU = &EndpointGPU{Pools: w.GPU.Pools, Count: w.GPU.Count.n}
	}
	if w.Scaling != nil {
		e.Scaling = &Scaling{
			Type: w.Scaling.Type, RequestCount: w.Scaling.RequestCount.n,
			QueueDelay: duration(w.Scaling.QueueDelay.n, time.Second),
		}
	}
	if w.Timeout.n != nil && *w.Timeout.n > 0 {
		e.ExecutionTimeout = duration(w.Timeout.n, time.Millisecond)
	}
	return e, nil
}

type wirePod struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Status PodStatus `json:"status"`
	Image  string    `json:"image"`
	GPU    *struct {
		ID    string `json:"id"`
		Count whole  `json:"count"`
	} `json:"gpu"`
	Cloud        string `json:"cloud"`
	DataCenterID string `json:"dataCenterId"`
	Cost         price  `json:"cost"`
	Runtime      *struct {
		Uptime figure `json:"uptime"` // seconds
		GPUs   few[struct {
			Util       figure `json:"util"`
			MemoryUtil figure `json:"memoryUtil"`
		}] `json:"gpus"`
		CPU    utilization `json:"cpu"`
		Memory utilization `json:"memory"`
	} `json:"runtime"`
	CreatedAt instant `json:"createdAt"`
	StartedAt instant `json:"startedAt"`
}

type utilization struct {
	Util figure `json:"util"`
}

func (w wirePod) pod() (Pod, error) {
	if err := possibleID(w.ID); err != nil {
		return Pod{}, err
	}
	if w.Status == "" {
		return Pod{}, errors.New("status is missing")
	}
	p := Pod{
		ID: w.ID, Name: w.Name, Status: w.Status, Image: w.Image, Cloud: w.Cloud, DataCenterID: w.DataCenterID,
		CostPerHour: known(w.Cost.n), CreatedAt: w.CreatedAt.at, StartedAt: w.StartedAt.at,
	}
	if w.GPU != nil {
		p.GPU = &PodGPU{ID: w.GPU.ID, Count: w.GPU.Count.n}
	}
	if w.Runtime == nil {
		return p, nil
	}
	p.Runtime = &PodRuntime{
		Uptime:     duration(w.Runtime.Uptime.n, time.Second),
		CPUPercent: known(w.Runtime.CPU.Util.n), MemoryPercent: known(w.Runtime.Memory.Util.n),
	}
	if w.Runtime.GPUs != nil {
		p.Runtime.GPUs = make([]GPUUtilization, 0, len(w.Runtime.GPUs))
	}
	for _, g := range w.Runtime.GPUs {
		p.Runtime.GPUs = append(p.Runtime.GPUs, GPUUtilization{UtilPercent: known(g.Util.n), MemoryPercent: known(g.MemoryUtil.n)})
	}
	return p, nil
}

func decodeEndpoint(body []byte) (Endpoint, error) {
	var w wireEndpoint
	if err := json.Unmarshal(body, &w); err != nil {
		return Endpoint{}, jsonError(err)
	}
	return w.endpoint()
}

// endpointLister and podLister decode the lists of at most so many entries.
func endpointLister(most int) lister[wireEndpoint, Endpoint] {
	return lister[wireEndpoint, Endpoint]{
		name: "endpoints", one: wireEndpoint.endpoint, id: func(e Endpoint) string { return e.ID }, most: most,
	}
}

func podLister(most int) lister[wirePod, Pod] {
	return lister[wirePod, Pod]{name: "pods", one: wirePod.pod, id: func(p Pod) string { return p.ID }, most: most}
}

func decodePod(body []byte) (Pod, error) {
	var w wirePod
	if err := json.Unmarshal(body, &w); err != nil {
		return Pod{}, jsonError(err)
	}
	return w.pod()
}

// possibleID refuses ids that no call could ask about: they become parts of
// paths and of subjects.
func possibleID(id string) error {
	switch {
	case id == "":
		return errors.New("id is missing")
	case id == "." || id == "..":
		return errors.New("id is a step in a path")
	case len(id) > maxIDBytes:
		return fmt.Errorf("id is longer than %d bytes", maxIDBytes)
	default:
		return nil
	}
}

func negative(n *int64) bool { return n != nil && *n < 0 }

// known drops a figure that cannot be one.
func known(f *float64) *float64 {
	if f == nil || *f < 0 {
		return nil
	}
	return f
}

// maxDuration is the longest time that is believed: a century, well short of the
// 292 years at which a [time.Duration] overflows.
const maxDuration = 100 * 365 * 24 * time.Hour

// duration converts a number of units, nil when absent or impossible.
func duration(f *float64, unit time.Duration) *time.Duration {
	if f == nil || *f < 0 || *f > float64(maxDuration/unit) {
		return nil
	}
	d := time.Duration(*f * float64(unit))
	return &d
}

// jsonError says where an answer is wrong without repeating what it holds.
func jsonError(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s is a JSON %s", cmp.Or(e.Field, "it"), e.Value)
	}
	return errNotJSON
}
