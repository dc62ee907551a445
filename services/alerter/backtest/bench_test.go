package backtest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/rules"
	"github.com/tocsin-dev/tocsin/services/alerter/backtest"
)

// BenchmarkRun plays a log in memory through the default rules: what a backtest costs
// without reading NATS.
func BenchmarkRun(b *testing.B) {
	log := &recorded{at: epoch}
	const endpoints, rounds = 1000, 40
	for round := range rounds {
		for i := range endpoints {
			log.at = log.at.Add(15 * time.Second / endpoints)
			log.add(queue(fmt.Sprint("e", i), int64((round+i)%3), log.at))
		}
	}
	compiled, err := backtest.Compile(rules.Default(), nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprint(workers, "workers"), func(b *testing.B) {
			for b.Loop() {
				run(b, backtest.Options{Log: log, Rules: compiled, Workers: workers})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(log.messages)), "ns/event")
		})
	}
}
