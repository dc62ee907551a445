package diagnosis

import (
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

const (
	// restartWindow and restartLeast are how often a container must begin anew: once
	// is a restart by somebody.
	restartWindow = 15 * time.Minute
	restartLeast  = 2
	// full is from what use of memory on a pod is about to be killed, in percent.
	full = 95
	// idleGPU and idleCPU are below what use a pod does nothing, in percent; loading
	// and preparing data keep processors busy.
	idleGPU = 10
	idleCPU = 20
	// idleLeast and idleSure are for how long.
	idleLeast = 10 * time.Minute
	idleSure  = time.Hour
)

// isGone looks for a pod that RunPod does not list any more.
func isGone(p *patient) *alertv1.Diagnosis {
	if p.Texts["pod.gone"] != "true" {
		return nil
	}
	return p.found(podDown, p.meant(), "RunPod no longer lists the pod: it was deleted, or taken away.").
		fact("pod.gone").do("Make it anew if nobody of you deleted it; what was not on a network volume is lost.").done()
}

// meant is how sure it is that a pod that does not run should.
func (p *patient) meant() alertv1.Certainty {
	if p.Labels["expect"] == "running" {
		return sure
	}
	return possible // a pod that nobody said must run may have been stopped
}

// isDown looks for a pod that ended.
func isDown(p *patient) *alertv1.Diagnosis {
	status := p.Texts["pod.status"]
	switch status {
	case "ERROR":
		return p.found(podDown, sure, "The pod failed: its status is ERROR.").fact("pod.status", "pod.cost_per_hour").
			do("Read the pod's log: a wrong image or start command, or a host that failed.", "Start it again, on another host if it fails again.").done()
	case "EXITED", "TERMINATED":
		f := p.found(podDown, p.meant(), "The pod does not run: its status is %s.", status).fact("pod.status", "pod.cost_per_hour")
		if p.meant() != sure {
			f.d.Sentence += " Nobody said that it must (expect: running)."
		}
		return f.do("Start it again if nobody of you stopped it; a pod without a free host must wait or move.", "See the account's balance: RunPod stops pods when it is spent.").done()
	}
	return nil
}

// isStarting looks for a pod that does not run yet.
func isStarting(p *patient) *alertv1.Diagnosis {
	status := p.Texts["pod.status"]
	if status != "STARTING" && status != "PROVISIONING" {
		return nil
	}
	return p.found(podStarting, likely, "The pod is starting: its status is %s.", status).fact("pod.status", "pod.cost_per_hour").
		do("Wait while the image is fetched; a smaller image starts sooner.", "If it goes on for a quarter of an hour, read the pod's log, or make it on another host.").done()
}

// restarts looks for a container that begins again and again.
func restarts(p *patient) *alertv1.Diagnosis {
	n, known := p.rise("pod.restarts", restartWindow)
	if !known || n < restartLeast {
		return nil
	}
	return p.found(podRestarting, sure, "The pod's container began %s times anew in the last %s.", text(n), span(restartWindow)).
		fact("pod.restarts", "pod.uptime_s", "memory.util_percent").or(memoryFull).
		do("Read the pod's log for what ended it.", "A container that the system kills for memory leaves no message: choose more memory.").done()
}

// lacksGPU looks for a running pod without its GPUs.
func lacksGPU(p *patient) *alertv1.Diagnosis {
	made, known := p.number("gpu.expected")
	has, told := p.number("gpu.count")
	if !known || !told || has >= made || p.Texts["pod.status"] != "RUNNING" {
		return nil
	}
	return p.found(gpuMissing, likely, "The pod runs and shows %s of its %s.", text(has), count(made, "GPU")).
		fact("gpu.count", "gpu.expected", "pod.uptime_s", "pod.cost_per_hour").
		do("Run nvidia-smi in the pod: a GPU that fell off the bus needs another host.", "Restart the pod; if that does not help, make it anew.").done()
}

// isFull looks for a pod whose memory is nearly used up.
func isFull(p *patient) *alertv1.Diagnosis {
	used, known := p.number("memory.util_percent")
	if !known || used < full {
		return nil
	}
	return p.found(memoryFull, likely, "The pod's memory is full to %s %%: at 100 the system ends what uses most.", text(used)).
		fact("memory.util_percent", "gpu.memory_percent", "pod.uptime_s").
		do("Make batches or the number of data loaders smaller.", "Choose a pod with more memory.").done()
}

// idles looks for a pod that costs money and does nothing.
func idles(p *patient) *alertv1.Diagnosis {
	cost, known := p.number("pod.cost_per_hour")
	_, gpu, seen := p.course("gpu.util_max", 2*time.Hour)
	if !known || cost == 0 || seen < idleLeast || gpu >= idleGPU {
		return nil
	}
	if _, cpu, told := p.course("cpu.util_percent", 2*time.Hour); told > 0 && cpu >= idleCPU {
		return nil
	}
	certainty := likely
	if seen >= idleSure {
		certainty = sure
	}
	return p.found(gpuIdle, certainty, "The pod's GPUs have been idle for %s: never above %s %% in use, at $%.2f an hour, $%.2f in that time.", span(seen), text(gpu), cost, cost*seen.Hours()).
		fact("gpu.util_max", "cpu.util_percent", "pod.cost_per_hour").
		do("Stop the pod if nobody needs it: what is on its volume stays.", "Move work that comes now and then to a serverless endpoint.").done()
}
