package main

import (
	"errors"
	"flag"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/test/bench/internal/facts"
	"github.com/tocsin-dev/tocsin/test/bench/internal/report"
)

// sizes say how much each benchmark does.
type sizes struct {
	seconds   int
	rates     string
	targets   int
	rounds    int
	alerts    int
	memory    int
	history   int
	replayed  int
	endpoints int
	poll      time.Duration // polling: the interval; not for people, whose goal is for 10 s
}

var (
	// usual takes less than five minutes on two processors.
	usual = sizes{
		seconds: 12, rates: "200,500", targets: 10_000, rounds: 24, alerts: 20_000,
		memory: 10_000, history: 48, replayed: 24, endpoints: 10_000, poll: 10 * time.Second,
	}
	// tiny only shows that everything works.
	tiny = sizes{
		seconds: 1, rates: "50", targets: 64, rounds: 3, alerts: 64, memory: 64, history: 3, replayed: 3, endpoints: 8, poll: time.Second,
	}
)

// measured is how long a rate is measured, and bounds what else takes seconds.
func (s *sizes) measured() time.Duration { return time.Duration(s.seconds) * time.Second }

func (s *sizes) register(set *flag.FlagSet) {
	set.IntVar(&s.seconds, "seconds", s.seconds, "latency: how many seconds each rate is measured, after up to 3 that do not count")
	set.StringVar(&s.rates, "rates", s.rates, "latency: alerts per second, separated by commas")
	set.IntVar(&s.targets, "targets", s.targets, "throughput, replay, takeover: how many targets there are")
	set.IntVar(&s.rounds, "rounds", s.rounds, "throughput: how often each target is polled; 1.25 facts a target and round")
	set.IntVar(&s.alerts, "alerts", s.alerts, "webhooks: how many distinct alerts are told")
	set.IntVar(&s.memory, "memory-targets", s.memory, "memory: how many targets there are")
	set.IntVar(&s.history, "history", s.history, "memory: how often each target is polled; 240 are an hour, which fills every window that matters")
	set.IntVar(&s.replayed, "replay-rounds", s.replayed, "replay: how often each target is polled after the snapshot")
	set.IntVar(&s.endpoints, "endpoints", s.endpoints, "polling: how many endpoints are polled every 10 s")
}

func (s *sizes) validate() error {
	var errs []error
	for _, n := range []struct {
		name  string
		value int
	}{
		{"seconds", s.seconds},
		{"rounds", s.rounds},
		{"alerts", s.alerts},
		{"history", s.history},
		{"replay-rounds", s.replayed},
		{"endpoints", s.endpoints},
	} {
		if n.value < 1 {
			errs = append(errs, fmt.Errorf("-%s: %d is not positive", n.name, n.value))
		}
	}
	for name, n := range map[string]int{"targets": s.targets, "memory-targets": s.memory} {
		if err := (facts.Fleet{Targets: n}).Validate(); err != nil {
			errs = append(errs, fmt.Errorf("-%s: %w", name, err))
		}
	}
	if _, err := s.alertRates(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *sizes) alertRates() ([]int, error) {
	var rates []int
	for text := range strings.SplitSeq(s.rates, ",") {
		var rate int
		if _, err := fmt.Sscanf(text, "%d", &rate); err != nil || rate < 1 {
			return nil, fmt.Errorf("-rates: %q is no number of alerts per second", text)
		}
		rates = append(rates, rate)
	}
	return rates, nil
}

// settings names the sizes as their flags do.
func (s *sizes) settings() map[string]string {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	given := *s
	given.register(set)
	all := map[string]string{}
	set.VisitAll(func(f *flag.Flag) { all[f.Name] = f.Value.String() })
	return all
}

func machine() report.Machine {
	return report.Machine{
		CPUs: runtime.GOMAXPROCS(0), OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version(), Revision: proc.ThisBuild().Revision,
	}
}
