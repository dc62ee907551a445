// Package report holds the figures of a run of the benchmarks: as a table for
// people, as JSON for later runs, and beside those of an earlier run.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"
)

// Format is the version of the JSON.
const Format = 1

// The units of figures. They say how a figure is written and which way is better.
const (
	// Milliseconds are a time in milliseconds; less is better.
	Milliseconds = "ms"
	// Seconds are a time in seconds; less is better.
	Seconds = "s"
	// PerSecond is a rate; more is better.
	PerSecond = "/s"
	// MiB is memory in mebibytes; less is better.
	MiB = "MiB"
	// KiB is memory in kibibytes; less is better.
	KiB = "KiB"
	// Ratio is a part of something; more is better.
	Ratio = "ratio"
	// Microseconds of processor time; less is better.
	Microseconds = "us"
	// Cores are processors that were busy on average; less is better.
	Cores = "cores"
	// Count is a number of things that should not be, such as lost alerts.
	Count = "count"
)

// Figure is one measured value.
type Figure struct {
	// Benchmark is the benchmark that it comes from, such as "latency".
	Benchmark string `json:"benchmark"`
	// Setting is what the benchmark ran with, such as "200 alerts/s, sync default".
	Setting string `json:"setting"`
	// Name says what was measured, such as "p99".
	Name string `json:"name"`
	// Value is the value in Unit.
	Value float64 `json:"value"`
	// Unit is one of the units of this package.
	Unit string `json:"unit"`
	// Goal is the value to reach; nil when there is none.
	Goal *float64 `json:"goal,omitempty"`
	// Raw is what the parts below give in the same run without Tocsin; nil when
	// nothing of the kind was measured.
	Raw *float64 `json:"raw,omitempty"`
	// RawName says what Raw is.
	RawName string `json:"raw_name,omitempty"`
	// Note says what else a reader should know.
	Note string `json:"note,omitempty"`
}

// MoreIsBetter tells which way a figure of this unit improves.
func MoreIsBetter(unit string) bool { return unit == PerSecond || unit == Ratio }

// Met tells whether the figure reaches its goal; true when it has none.
func (f Figure) Met() bool {
	switch {
	case f.Goal == nil:
		return true
	case MoreIsBetter(f.Unit):
		return f.Value >= *f.Goal
	default:
		return f.Value <= *f.Goal
	}
}

func (f Figure) key() [3]string { return [3]string{f.Benchmark, f.Setting, f.Name} }

// Machine is where the figures were taken.
type Machine struct {
	// CPUs is how many processors the benchmarks could use.
	CPUs int `json:"cpus"`
	// OS, Arch and Go are the system, the processor's kind and the Go release.
	OS   string `json:"os"`
	Arch string `json:"arch"`
	Go   string `json:"go"`
	// NATS and Redis are the servers' versions.
	NATS  string `json:"nats,omitempty"`
	Redis string `json:"redis,omitempty"`
	// Revision is the commit of Tocsin, with "-dirty" when the tree had changes.
	Revision string `json:"revision"`
}

// Load is how busy the machine was with other things. Nil stands for what the
// system does not tell.
type Load struct {
	// Benchmark is the one that ran then.
	Benchmark string `json:"benchmark"`
	// Average is how many processes wanted to run in the minute before it, those
	// of the benchmark before it too.
	Average *float64 `json:"average,omitempty"`
	// Others is the part of the processors' time that others used meanwhile.
	Others *float64 `json:"others,omitempty"`
}

// Report is the outcome of a run.
type Report struct {
	// Format is the version of the JSON.
	Format int `json:"format"`
	// At is when the run began.
	At time.Time `json:"at"`
	// Took is how long it took, in seconds.
	Took float64 `json:"took_s"`
	// Machine is where it ran.
	Machine Machine `json:"machine"`
	// Settings are the sizes that were asked for, by the names of their flags.
	Settings map[string]string `json:"settings"`
	// Loads are what else the machine did, by benchmark.
	Loads []Load `json:"loads"`
	// Figures are the outcome.
	Figures []Figure `json:"figures"`
}

// Add appends a figure.
func (r *Report) Add(f Figure) { r.Figures = append(r.Figures, f) }

// Lost counts the figures that say that something was lost. They are mistakes,
// not slowness.
func (r *Report) Lost() int {
	n := 0
	for _, f := range r.Figures {
		if f.Unit == Count && !f.Met() {
			n++
		}
	}
	return n
}

// Write writes the report as JSON.
func (r *Report) Write(w io.Writer) error {
	for _, f := range r.Figures {
		if math.IsNaN(f.Value) || math.IsInf(f.Value, 0) {
			return fmt.Errorf("write the report: %s %s %s is no number", f.Benchmark, f.Setting, f.Name)
		}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// Read reads what Write wrote into a file.
func Read(name string) (*Report, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the report to compare with: %w", err)
	}
	r := new(Report)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read the report %s: %w", name, err)
	}
	if r.Format != Format {
		return nil, fmt.Errorf("read the report %s: its format is %d, and this release compares %d", name, r.Format, Format)
	}
	return r, nil
}

// ErrNothing says that there are no values to take a percentile of.
var ErrNothing = errors.New("nothing was measured")

// Percentiles are of times.
type Percentiles struct {
	// P50, P99 and Max are the median, the 99th percentile and the greatest.
	P50, P99, Max time.Duration
}

// PercentilesOf returns the nearest-rank percentiles of times, which it sorts.
func PercentilesOf(times []time.Duration) (Percentiles, error) {
	if len(times) == 0 {
		return Percentiles{}, ErrNothing
	}
	slices.Sort(times)
	rank := func(p float64) time.Duration {
		return times[max(int(math.Ceil(p*float64(len(times))))-1, 0)]
	}
	return Percentiles{P50: rank(0.50), P99: rank(0.99), Max: times[len(times)-1]}, nil
}
