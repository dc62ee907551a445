package feed

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	reads, alone, holes, missing, foreign prometheus.Counter
}

func newMetrics(r prometheus.Registerer, f *Feed) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tocsin_alerter_feed_" + name, Help: help})
	}
	m := &metrics{
		reads:   counter("reads_total", "Times that reading the event log for all partitions began, at a start or to go back for a partition."),
		alone:   counter("own_readers_total", "Times that a partition was far behind and was given a reader of its own."),
		holes:   counter("holes_total", "Holes found in the event log."),
		missing: counter("missing_messages_total", "Messages that were gone from the event log before they were read."),
		foreign: counter("foreign_messages_total", "Messages in the event log whose subject is none of ours."),
	}
	if r != nil {
		r.MustRegister(m.reads, m.alone, m.holes, m.missing, m.foreign,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "tocsin_alerter_lag_messages",
				Help: "Messages of the event log that are known to wait to be read.",
			}, func() float64 { return float64(f.lag()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "tocsin_alerter_feed_partitions_behind",
				Help: "Partitions that are far behind the others and have, or wait for, a reader of their own.",
			}, func() float64 { return float64(f.behind()) }))
	}
	return m
}

// lag tells how many messages are known to wait for any reader.
func (f *Feed) lag() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.waiting.Load()
	for _, s := range f.members {
		if s != nil {
			n += s.behind.Load()
		}
	}
	return n
}

// behind tells how many partitions have, or wait for, a reader of their own.
func (f *Feed) behind() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, s := range f.members {
		if s != nil && s.place == alone {
			n++
		}
	}
	return n
}
