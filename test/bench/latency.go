package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/test/bench/internal/facts"
	"github.com/tocsin-dev/tocsin/test/bench/internal/hook"
	"github.com/tocsin-dev/tocsin/test/bench/internal/report"
)

const (
	// longestWarmUp is how long a rate runs before it is measured; for as long as
	// it is measured if that is less.
	longestWarmUp = 3 * time.Second
	// flipEvery is the time between two changes of one queue: an alert fires for
	// that long, and as long there is none.
	flipEvery = 2 * time.Second
	// lostAfter is how long nothing must arrive before what is missing counts as
	// lost: longer than any pause of a busy machine.
	lostAfter = 30 * time.Second
	// bareFor is how long the bare path is measured, after bareWarmUp, on queues
	// that are numbered from bareFrom on.
	bareFor    = 2 * time.Second
	bareWarmUp = time.Second
	bareFrom   = 500_000
)

// latency measures from the call that publishes a fact to the webhook's arrival.
// Each fact is a sample of an endpoint's queue, published as the collector does
// but not polled; it makes an alert fire or resolve at once, and each of these
// changes is a webhook of its own. Rate is the number of changes a second: half
// of them fire, half resolve.
func latency(ctx context.Context, s *suite) error {
	rates, err := s.sizes.alertRates()
	if err != nil {
		return err
	}
	for _, always := range s.syncs {
		for _, rate := range rates {
			if err := s.latencyAt(ctx, rate, always); err != nil {
				return fmt.Errorf("%d alerts/s, %s: %w", rate, syncName(always), err)
			}
		}
	}
	return nil
}

func (s *suite) latencyAt(ctx context.Context, rate int, always bool) (err error) {
	w, err := s.world(ctx, always, true, fmt.Sprintf("%d", rate))
	if err != nil {
		return err
	}
	defer func() { err = w.end(err) }()
	bare, err := w.bare(ctx, rate)
	if err != nil {
		return fmt.Errorf("bare path: %w", err)
	}
	a, err := w.alerter(ctx, "alerter", map[string][]byte{"bench.yaml": []byte(facts.Flipping)})
	if err != nil {
		return err
	}
	if err := w.settle(ctx, a); err != nil {
		return err
	}
	measured := s.sizes.measured()
	warmUp := min(longestWarmUp, measured)
	flips := newFlips(rate, warmUp, measured)
	if err := flips.prepare(ctx, w.conn); err != nil {
		return err
	}
	if err := w.settle(ctx, a); err != nil {
		return err
	}
	s.progress.step("%d alerts/s, %s: %v, and %v that count", rate, syncName(always), warmUp, measured)
	stop, err := w.Profile(ctx, measured, a.Service, w.notifier)
	if err != nil {
		return err
	}
	alerter, err := a.Metrics(ctx)
	if err != nil {
		return err
	}
	before := w.Usage()
	if err := flips.run(ctx, w.conn, s.progress); err != nil {
		return err
	}
	if err := w.hook.Wait(ctx, len(flips.all), lostAfter); err != nil && !errors.Is(err, hook.ErrMissing) {
		return err
	}
	after := w.Usage()
	if err := stop(); err != nil {
		return err
	}
	alerterAfter, err := a.Metrics(ctx)
	if err != nil {
		return err
	}
	if err := flips.judge(ctx, w); err != nil {
		return err
	}
	s.addLatency(rate, always, flips, bare)
	setting := fmt.Sprintf("%d alerts/s, %s", rate, syncName(always))
	s.add(setting, report.Figure{
		Name: "a commit to Redis, mean", Value: 1000 * alerterAfter.Mean(alerter, "tocsin_alerter_commit_seconds"), Unit: report.Milliseconds,
	})
	for _, name := range processes {
		s.add(setting, report.Figure{
			Name: "cpu of " + name + " per alert", Unit: report.Microseconds,
			Value: float64(after[name].CPU-before[name].CPU) / float64(len(flips.all)) / float64(time.Microsecond),
		})
	}
	return nil
}

// goals of latency: those of 500 a second with "sync default" are the design's.
func (s *suite) addLatency(rate int, always bool, f *flips, bare report.Percentiles) {
	setting := fmt.Sprintf("%d alerts/s, %s", rate, syncName(always))
	var p50, p99 *float64
	switch {
	case rate <= 200:
		p50, p99 = new(5.0), new(25.0)
	case always:
		p50, p99 = new(5.0), new(20.0)
	case rate <= 500:
		p50, p99 = new(3.0), new(15.0)
	}
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	figure := func(name string, d time.Duration, goal *float64, raw *float64) {
		f := report.Figure{Name: name, Value: ms(d), Unit: report.Milliseconds, Goal: goal, Raw: raw}
		if raw != nil {
			f.RawName = "bare path"
		}
		s.add(setting, f)
	}
	// An empty list of times is a run in which nothing arrived: lost says so.
	p, _ := report.PercentilesOf(f.times())
	figure("p50", p.P50, p50, new(ms(bare.P50)))
	figure("p99", p.P99, p99, new(ms(bare.P99)))
	figure("max", p.Max, nil, new(ms(bare.Max)))
	for _, stage := range f.stages() {
		p, _ := report.PercentilesOf(stage.times)
		figure("  "+stage.name+", p50", p.P50, nil, nil)
		figure("  "+stage.name+", p99", p.P99, nil, nil)
	}
	count := func(name, note string, n int, goal *float64) {
		s.add(setting, report.Figure{Name: name, Value: float64(n), Unit: report.Count, Goal: goal, Note: note})
	}
	lost, overtaken := f.lost()
	count("lost", fmt.Sprintf("of %d; the generator was late by at most %.1f ms", len(f.all), ms(f.late)), lost, new(0.0))
	count("told only when over", "", overtaken, nil)
	count("invented", "", f.invented, new(0.0))
	count("told again", "", f.again, nil)
}

// bare measures the path without Tocsin: a fact is published and stored, read
// from the log and posted, with nothing in between that decides or remembers.
func (w *world) bare(ctx context.Context, rate int) (report.Percentiles, error) {
	w.suite.progress.step("%d alerts/s: the bare path", rate)
	h, err := hook.Start(false)
	if err != nil {
		return report.Percentiles{}, err
	}
	defer h.Close()
	reader, err := bus.Connect(ctx, bus.Options{URL: w.NATS.URL(), Name: "bench-bare"})
	if err != nil {
		return report.Percentiles{}, err
	}
	defer reader.Close()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	defer client.CloseIdleConnections()

	f := newFlips(rate, bareWarmUp, min(bareFor, w.suite.sizes.measured()))
	f.from, f.still = bareFrom, true
	reading, stop := context.WithCancel(ctx)
	var posts sync.WaitGroup
	failed := make(chan error, len(f.all)+1)
	posts.Go(func() {
		err := reader.Read(reading, bus.ReadOptions{Stream: bus.EventsStream}, func(d bus.Delivery) error {
			posts.Go(func() {
				if err := post(ctx, client, h.URL, strconv.FormatUint(d.Seq, 10), d.Data); err != nil {
					failed <- err
				}
			})
			return nil
		})
		if reading.Err() == nil {
			failed <- err
		}
	})
	err = f.run(ctx, w.conn, w.suite.progress)
	if err == nil {
		err = h.Wait(ctx, len(f.all), lostAfter)
	}
	stop()
	posts.Wait()
	close(failed)
	for e := range failed {
		err = errors.Join(err, e)
	}
	if err != nil {
		return report.Percentiles{}, err
	}
	for _, a := range h.Arrivals() {
		if seq, err := strconv.ParseUint(a.ID, 10, 64); err == nil {
			if k, ok := f.bySeq[seq]; ok {
				f.all[k].arrived = a.At
			}
		}
	}
	return report.PercentilesOf(f.times())
}

// post sends a body and takes the answer.
func post(ctx context.Context, client *http.Client, url, id string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("post: %w", err)
	}
	req.Header.Set("webhook-id", id)
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("post: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return fmt.Errorf("post: %w", err)
	}
	return nil
}
