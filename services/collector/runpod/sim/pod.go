package sim

import (
	"fmt"
	"time"
)

// podNoise is how long a pod's figures stay as they are: RunPod refreshes them
// about that often.
const podNoise = 15 * time.Second

// pod has no state: its figures are a function of time.
type pod struct {
	spec   PodSpec
	seed   uint64
	script schedule
}

type wirePod struct {
	ID               string            `json:"id"`
	Name             string            `json:"name"`
	Image            string            `json:"image"`
	Args             string            `json:"args"`
	Disk             int               `json:"disk"`
	Ports            []string          `json:"ports"`
	Env              map[string]string `json:"env"`
	Registry         *string           `json:"registry"`
	Status           string            `json:"status"`
	Actions          []string          `json:"actions"`
	Mounts           map[string]any    `json:"mounts"`
	GPU              *wireGPU          `json:"gpu,omitempty"`
	CPU              *wireCPU          `json:"cpu,omitempty"`
	Cloud            string            `json:"cloud"`
	DataCenterID     string            `json:"dataCenterId"`
	CUDAVersion      *string           `json:"cudaVersion"`
	SSH              wireSSH           `json:"ssh"`
	Template         *string           `json:"template"`
	Cost             float64           `json:"cost"`
	Locked           bool              `json:"locked"`
	GlobalNetworking map[string]bool   `json:"globalNetworking"`
	Runtime          *wireRuntime      `json:"runtime"`
	CreatedAt        time.Time         `json:"createdAt"`
	StartedAt        *time.Time        `json:"startedAt"`
}

type wireGPU struct {
	ID    string `json:"id"`
	Count int    `json:"count"`
}

type wireCPU struct {
	ID        string `json:"id"`
	VCPUCount int    `json:"vcpuCount"`
	Memory    int    `json:"memory"`
}

type wireSSH struct {
	Proxy  *string `json:"proxy"`
	Direct *string `json:"direct"`
}

type wireRuntime struct {
	Uptime int64       `json:"uptime"`
	GPUs   []wireUtil  `json:"gpus,omitempty"`
	CPU    wireUtil    `json:"cpu"`
	Memory wireUtil    `json:"memory"`
	Ports  []wirePorts `json:"ports"`
}

type wireUtil struct {
	Util       int  `json:"util"`
	MemoryUtil *int `json:"memoryUtil,omitempty"`
}

type wirePorts struct {
	Private int    `json:"private"`
	Public  *int   `json:"public"`
	Type    string `json:"type"`
}

// wire describes the pod at t; began is the instant of t = 0.
func (p *pod) wire(began time.Time, t time.Duration) wirePod {
	created := began.Add(-p.spec.Age)
	w := wirePod{
		ID: p.spec.ID, Name: p.spec.Name, Image: "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404", Disk: 50,
		Ports: []string{"8888/http"}, Env: map[string]string{"HF_TOKEN": "hf_SIMULATEDsecret0000"},
		Status: "RUNNING", Actions: []string{"stop", "restart", "terminate"}, Mounts: map[string]any{},
		Cloud: "SECURE", DataCenterID: "US-KS-2", Cost: p.spec.CostPerHour,
		GlobalNetworking: map[string]bool{"enabled": false}, CreatedAt: created, StartedAt: &created,
	}
	if p.spec.GPU != "" {
		cuda := "12.8"
		w.GPU, w.CUDAVersion = &wireGPU{ID: p.spec.GPU, Count: p.spec.GPUs}, &cuda
	} else {
		w.CPU = &wireCPU{ID: "cpu5c", VCPUCount: 4, Memory: 16}
	}
	if _, exited := p.script.active(t, podExit); exited || p.spec.Stopped {
		w.Status, w.Actions, w.Cost = "EXITED", []string{"start", "terminate"}, 0
		return w
	}
	uptime := p.spec.Age + t
	if ended := p.script.lastEnd(t, podExit); ended > 0 {
		restarted := began.Add(ended)
		w.StartedAt, uptime = &restarted, t-ended
	}
	w.Runtime = p.runtime(t, uptime)
	return w
}

func (p *pod) runtime(t, uptime time.Duration) *wireRuntime {
	_, asleep := p.script.active(t, idleGPU)
	r := &wireRuntime{
		Uptime: int64(uptime / time.Second), Ports: []wirePorts{{Private: 8888, Type: "http"}},
		CPU: wireUtil{Util: p.noise(t, "cpu", 35, 20)}, Memory: wireUtil{Util: p.noise(t, "memory", 45, 6)},
	}
	if asleep {
		r.CPU.Util, r.Memory.Util = p.noise(t, "cpu", 1, 2), p.noise(t, "memory", 12, 2)
	}
	if _, missing := p.script.active(t, gpuMissing); missing {
		return r
	}
	for i := range p.spec.GPUs {
		util, memory := p.noise(t, fmt.Sprintf("gpu%d", i), p.spec.Util, 16), p.noise(t, fmt.Sprintf("vram%d", i), 70, 10)
		if asleep {
			util, memory = 0, 3
		}
		r.GPUs = append(r.GPUs, wireUtil{Util: util, MemoryUtil: &memory})
	}
	return r
}

// noise returns a percentage around mean, the same for podNoise.
func (p *pod) noise(t time.Duration, name string, mean, spread int) int {
	d := draw(p.seed, fmt.Sprintf("%s/%d", name, t/podNoise))
	return min(max(mean+int((d-0.5)*float64(spread)), 0), 100)
}
