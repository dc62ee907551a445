package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/rpc"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
	"github.com/tocsin-dev/tocsin/test/bench/internal/hook"
	"github.com/tocsin-dev/tocsin/test/bench/internal/report"
)

const (
	// perCall is how many alerts a call of Notify brings at most. The alerter
	// sends up to 500, or 508 KiB: at 2.5 KiB each those are 200.
	perCall = 200
	// callers is how many calls are in flight at once, as an alerter's.
	callers = 8
	// firstRepeat and lastRepeat bound the pause before a call is repeated, as an
	// alerter's do.
	firstRepeat, lastRepeat = 50 * time.Millisecond, 2 * time.Second
	// posters is how many requests are on their way when posts are measured by
	// themselves.
	posters = 64
	// seriesLength is how many points of each field an alert's evidence shows.
	seriesLength = 30
)

// logID names a log as the alerter does: by its generation and its creation.
const logID = "000000000001-0000000000000000001"

// webhooks measures a notifier by itself: distinct alerts, each in a group of
// its own, from the calls of Notify to the arrival of the last webhook.
func webhooks(ctx context.Context, s *suite) error {
	for _, always := range s.syncs {
		if err := s.webhooksOn(ctx, always); err != nil {
			return fmt.Errorf("%s: %w", syncName(always), err)
		}
	}
	return nil
}

func (s *suite) webhooksOn(ctx context.Context, always bool) (err error) {
	w, err := s.world(ctx, always, true, s.current)
	if err != nil {
		return err
	}
	defer func() { err = w.end(err) }()
	conn, err := rpc.Dial(w.notifier.GRPC, rpc.DialOptions{})
	if err != nil {
		return fmt.Errorf("connect to the notifier: %w", err)
	}
	defer conn.Close()
	client := notifyv1.NewNotifierServiceClient(conn)

	n := s.sizes.alerts
	s.progress.step("%s: telling %d alerts", syncName(always), n)
	stop, err := w.Profile(ctx, profileFor, w.notifier)
	if err != nil {
		return err
	}
	before := w.Usage()
	began := time.Now()
	var repeated atomic.Int64
	g, calling := errgroup.WithContext(ctx)
	g.SetLimit(callers)
	for partition := range partitions {
		g.Go(func() error { return fire(calling, client, partition, n, &repeated) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	accepted := time.Since(began)
	missing := w.hook.Wait(ctx, n, lostAfter)
	if missing != nil && !errors.Is(missing, hook.ErrMissing) {
		return missing
	}
	after := w.Usage()
	if err := stop(); err != nil {
		return err
	}
	memory, err := w.notifier.Memory(ctx)
	if err != nil {
		return err
	}
	arrivals := w.hook.Arrivals()
	if len(arrivals) == 0 {
		return missing
	}
	took := arrivals[len(arrivals)-1].At.Sub(began)
	lost, invented, err := tally(arrivals, n)
	if err != nil {
		return err
	}
	s.progress.step("%s: posting %d bodies", syncName(always), n)
	posted, err := postAll(ctx, n, arrivals[0].Body)
	if err != nil {
		return err
	}
	setting := fmt.Sprintf("%d alerts, %s", n, syncName(always))
	s.add(setting, report.Figure{
		Name: "alerts", Value: float64(n-lost) / took.Seconds(), Unit: report.PerSecond, Goal: new(5000.0), Raw: &posted, RawName: "posts alone",
		Note: fmt.Sprintf("all accepted after %.1f s, %d calls repeated; bodies of %d bytes", accepted.Seconds(), repeated.Load(), len(arrivals[0].Body)),
	})
	mib := func(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
	s.add(setting, report.Figure{Name: "peak memory of the notifier", Value: mib(after["notifier"].Peak), Unit: report.MiB, Goal: new(250.0)})
	s.add(setting, report.Figure{Name: "heap in use at the end", Value: mib(memory.InUse), Unit: report.MiB})
	s.add(setting, report.Figure{Name: "heap after a collection", Value: mib(memory.Live), Unit: report.MiB})
	for _, name := range []string{"nats", "notifier"} {
		s.add(setting, report.Figure{
			Name: "cpu of " + name + " per alert", Unit: report.Microseconds,
			Value: float64(after[name].CPU-before[name].CPU) / float64(n) / float64(time.Microsecond),
		})
	}
	s.add(setting, report.Figure{Name: "lost", Value: float64(lost), Unit: report.Count, Goal: new(0.0)})
	s.add(setting, report.Figure{Name: "invented", Value: float64(invented), Unit: report.Count, Goal: new(0.0)})
	return nil
}

// fire tells those of n alerts that are in a partition, one call after another,
// and repeats calls as an alerter does.
func fire(ctx context.Context, client notifyv1.NotifierServiceClient, partition, n int, repeated *atomic.Int64) error {
	var batch []*alertv1.Transition
	send := func() error {
		if len(batch) == 0 {
			return nil
		}
		for wait := firstRepeat; ; wait = min(2*wait, lastRepeat) {
			_, err := client.Notify(ctx, &notifyv1.NotifyRequest{Partition: uint32(partition), OwnerToken: "bench", Transitions: batch})
			if status.Code(err) != codes.Unavailable {
				batch = nil
				return err
			}
			repeated.Add(1)
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			}
		}
	}
	for i := partition; i < n; i += partitions {
		if batch = append(batch, firing(i)); len(batch) == perCall {
			if err := send(); err != nil {
				return err
			}
		}
	}
	return send()
}

// alertID is the id of an alert.
func alertID(i int) string { return fmt.Sprintf("%032x", i) }

// firing returns an alert as the default rules make them: texts, values, and the
// course of the fields that its rule names.
func firing(i int) *alertv1.Transition {
	id := alertID(i)
	now := timestamppb.Now()
	series := func(field string) *alertv1.Series {
		s := &alertv1.Series{Field: field}
		for p := range seriesLength {
			s.Points = append(s.Points, &alertv1.Point{SecondsAgo: float64(15 * (seriesLength - p)), Value: new(float64(p))})
		}
		return s
	}
	endpoint := fmt.Sprintf("endpoint%06d", i)
	a := &alertv1.Alert{
		Id: id, Fingerprint: id[16:], Group: "endpoint-causes", Rule: "NoCapacity",
		Target: &eventv1.Target{Account: "bench", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: endpoint, Name: "prod-" + endpoint},
		Labels: map[string]string{
			"alertname": "NoCapacity", "account": "bench", "endpoint": "prod-" + endpoint, "endpoint_id": endpoint, "severity": "critical",
		},
		Annotations: map[string]string{
			"summary": "prod-" + endpoint + " gets no workers: 31 queued, 4 throttled, none running for 5 minutes",
			"runbook": "RunPod has no host of the chosen kind free. Allow more GPU types or data centres in the endpoint's settings, or keep a worker running with min workers.",
		},
		State: alertv1.AlertState_ALERT_STATE_FIRING, ActiveAt: now, FiredAt: now,
		Evidence: &alertv1.Evidence{
			Expression: "min(jobs.in_queue, '5m') > 0 && max(workers.running, '5m') == 0",
			Values: []*alertv1.Value{
				{Name: "min(jobs.in_queue, '5m')", Value: "31", Number: new(31.0)},
				{Name: "max(workers.running, '5m')", Value: "0", Number: new(0.0)},
			},
			Series: []*alertv1.Series{series("jobs.in_queue"), series("workers.running")},
		},
	}
	return &alertv1.Transition{
		Id: "t" + id, Kind: alertv1.TransitionKind_TRANSITION_KIND_FIRING, At: now, Alert: a,
		Cause: &alertv1.Cause{LogId: logID, Sequence: uint64(i) + 1},
	}
}

// tally counts which of n alerts no message tells, and which messages tell of
// something else.
func tally(arrivals []hook.Arrival, n int) (lost, invented int, err error) {
	missing := make(map[string]bool, n)
	for i := range n {
		missing[alertID(i)] = true
	}
	for _, a := range arrivals {
		told, err := a.Read()
		if err != nil {
			return 0, 0, err
		}
		for _, t := range told {
			if _, known := missing[t.ID]; !known || t.Status != "firing" {
				invented++
			} else {
				missing[t.ID] = false
			}
		}
	}
	for _, m := range missing {
		if m {
			lost++
		}
	}
	return lost, invented, nil
}

// postAll posts a body n times to a receiver of its own, and returns the posts
// per second.
func postAll(ctx context.Context, n int, body []byte) (float64, error) {
	h, err := hook.Start(false)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: posters}}
	defer client.CloseIdleConnections()
	began := time.Now()
	g, posting := errgroup.WithContext(ctx)
	for p := range posters {
		g.Go(func() error {
			for i := p; i < n; i += posters {
				if err := post(posting, client, h.URL, alertID(i), body); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(began).Seconds(), nil
}
