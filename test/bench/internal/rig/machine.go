package rig

import (
	"runtime"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// Machine is what the machine has done so far.
type Machine struct {
	// Load is the average number of processes that wanted to run in the last
	// minute.
	Load float64

	at         time.Time
	busy, ours time.Duration
}

// Look returns what the machine has done until now; false where the system does
// not tell.
func Look() (Machine, bool) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return Machine{}, false
	}
	load, err := fs.LoadAvg()
	if err != nil {
		return Machine{}, false
	}
	stat, err := fs.Stat()
	if err != nil {
		return Machine{}, false
	}
	c := stat.CPUTotal
	// Stolen time is what other machines on the same hardware took.
	busy := c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ + c.Steal
	return Machine{Load: load.Load1, at: time.Now(), busy: time.Duration(busy * float64(time.Second)), ours: ours()}, true
}

// Others returns the part of all processors' time between two looks that neither
// this process used nor those that it started and that ended in between.
func Others(from, to Machine) float64 {
	all := to.at.Sub(from.at).Seconds() * float64(runtime.NumCPU())
	if all <= 0 {
		return 0
	}
	return max((to.busy-from.busy).Seconds()-(to.ours-from.ours).Seconds(), 0) / all
}

// ours returns the processor time of this process and of those that it started
// and that have ended.
func ours() time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}
