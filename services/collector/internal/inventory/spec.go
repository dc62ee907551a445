package inventory

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

const (
	// maxName bounds a name, in bytes. RunPod's console takes 191 characters.
	maxName = 256
	// maxText bounds every other text, in bytes; an image's reference has 512 at
	// most.
	maxText = 512
	// maxList bounds the lists of pools and data centres, of which RunPod has
	// about 20 and 40. A spec stays below half of what an event may hold.
	maxList = 50
)

// Seen is one entry of a list: a target with its settings.
type Seen struct {
	// ID is RunPod's id.
	ID string
	// Name is RunPod's name, which may change.
	Name string
	// Spec holds its settings, nil when they could not be read: the target is there
	// and stays as it was known.
	Spec *eventv1.TargetSpec
}

// FromEndpoint returns e as an entry. Nothing that could hold a secret is in it.
// RunPod's own description makes the type optional: an endpoint that says by neither
// name nor URLs that it is a load balancer is a queue, as all were before these.
func FromEndpoint(e runpod.Endpoint) Seen {
	spec := &eventv1.EndpointSpec{
		WorkersMin:       e.MinWorkers,
		WorkersMax:       e.MaxWorkers,
		IdleTimeout:      durationOf(e.IdleTimeout),
		ExecutionTimeout: durationOf(e.ExecutionTimeout),
		Image:            text(e.Image),
		DataCenters:      set(e.DataCenterIDs),
		Flashboot:        text(e.FlashBoot),
	}
	switch e.Type {
	case runpod.Queue, "":
		spec.Type = eventv1.EndpointType_ENDPOINT_TYPE_QUEUE
	case runpod.LoadBalancer:
		spec.Type = eventv1.EndpointType_ENDPOINT_TYPE_LOAD_BALANCER
	}
	if e.Scaling != nil {
		spec.Scaler = text(e.Scaling.Type)
	}
	if e.GPU != nil {
		spec.GpuPools = set(e.GPU.Pools)
		spec.GpuCount = valueOf(e.GPU.Count)
	}
	return Seen{ID: e.ID, Name: event.RedactTo(e.Name, maxName), Spec: &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: spec}}}
}

// FromPod returns p as an entry. Nothing that could hold a secret is in it.
func FromPod(p runpod.Pod) Seen {
	spec := &eventv1.PodSpec{Cloud: text(p.Cloud), DataCenter: text(p.DataCenterID), Image: text(p.Image)}
	if p.GPU != nil {
		spec.GpuType = text(p.GPU.ID)
		spec.GpuCount = valueOf(p.GPU.Count)
	}
	return Seen{ID: p.ID, Name: event.RedactTo(p.Name, maxName), Spec: &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Pod{Pod: spec}}}
}

func text(s string) string { return event.RedactTo(s, maxText) }

// set returns list as a set: sorted, because RunPod promises no order, and
// bounded.
func set(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	clean := make([]string, 0, len(list))
	for _, s := range list {
		clean = append(clean, text(s))
	}
	slices.Sort(clean)
	clean = slices.Compact(clean)
	return clean[:min(len(clean), maxList)]
}

func durationOf(d *time.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	return durationpb.New(*d)
}

func valueOf(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}
