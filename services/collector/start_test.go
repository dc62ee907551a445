package collector

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/inventory"
	"github.com/tocsin-dev/tocsin/services/collector/internal/job"
	"github.com/tocsin-dev/tocsin/services/collector/internal/poll"
)

func TestSkew(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		held   time.Duration
		stored time.Time
		want   time.Duration
	}{
		"equal clocks":                         {0, noon, 0},
		"a clock that is ahead of the log's":   {0, noon.Add(-3 * time.Second), 3 * time.Second},
		"a clock that is behind the log's":     {0, noon.Add(3 * time.Second), -3 * time.Second},
		"what was held is no skew":             {time.Hour, noon.Add(time.Hour), 0},
		"what was held and a clock that leads": {time.Hour, noon.Add(time.Hour - time.Minute), time.Minute},
	} {
		e := &eventv1.Event{OccurredAt: timestamppb.New(noon), Held: durationpb.New(test.held)}
		if got := skewOf(e, test.stored); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func metaBucket(t *testing.T, conn *bus.Conn) *bus.Bucket {
	t.Helper()
	meta, err := conn.Bucket(t.Context(), bus.BucketConfig{Name: bus.MetaBucket})
	if err != nil {
		t.Fatal(err)
	}
	return meta
}

func TestHowFarBackJobsAreRead(t *testing.T) {
	meta := metaBucket(t, servertest.NATS(t).Conn(t))
	now := time.Now().Truncate(time.Millisecond)
	for name, test := range map[string]struct {
		kept  string // what is written down, if anything
		alive time.Time
		want  time.Duration
	}{
		"40 minutes, of which ends are told":   {"", now, 40 * time.Minute},
		"no less for a young job":              {fmt.Sprint(now.Add(-time.Minute).UnixMilli()), now, 40 * time.Minute},
		"to the start of the oldest open job":  {fmt.Sprint(now.Add(-3 * time.Hour).UnixMilli()), now, 3*time.Hour + 5*time.Minute},
		"no further than the log":              {fmt.Sprint(now.Add(-30 * 24 * time.Hour).UnixMilli()), now, 7 * 24 * time.Hour},
		"what no job is open for is not older": {"0", now, 40 * time.Minute},
		"what cannot be read is not older":     {"soon", now, 40 * time.Minute},
		"before the night in which none lived": {"0", now.Add(-8 * time.Hour), 8*time.Hour + 40*time.Minute},
		"all of the log where none ever lived": {"", time.Time{}, 7 * 24 * time.Hour},
		"no less where its clock is ahead":     {"", now.Add(time.Hour), 40 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			account := fmt.Sprintf("a%x", name)
			if test.kept != "" {
				if _, err := meta.Put(t.Context(), jobsKey(account), []byte(test.kept)); err != nil {
					t.Fatal(err)
				}
			}
			from, err := jobsSince(t.Context(), meta, account, test.alive, now)
			if err != nil || now.Sub(from) != test.want {
				t.Errorf("read %v back, %v; want %v", now.Sub(from), err, test.want)
			}
		})
	}
}

func TestAWebhookSecretIsMadeOnce(t *testing.T) {
	meta := metaBucket(t, servertest.NATS(t).Conn(t))
	first, err := webhookSecret(t.Context(), meta, "")
	if err != nil || len(first.Reveal()) < 26 {
		t.Fatalf("made %d characters, %v", len(first.Reveal()), err)
	}
	if again, err := webhookSecret(t.Context(), meta, ""); again != first || err != nil {
		t.Errorf("the next start has another one, %v", err)
	}
	if own, err := webhookSecret(t.Context(), meta, "mine"); own != "mine" || err != nil {
		t.Errorf("the configured one is not taken, %v", err)
	}
}

// TestALogThatThisReleaseCannotReadIsLeftOut puts what no release writes beside
// what this one did.
func TestALogThatThisReleaseCannotReadIsLeftOut(t *testing.T) {
	conn := servertest.NATS(t).Conn(t)
	ctx := t.Context()
	if _, err := conn.EnsureStream(ctx, bus.Events(0)); err != nil {
		t.Fatal(err)
	}
	ep := &eventv1.Target{Account: "default", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: "ep"}
	facts := []*eventv1.Event{
		{Target: ep, Fact: &eventv1.Event_TargetDiscovered{TargetDiscovered: &eventv1.TargetDiscovered{Spec: &eventv1.TargetSpec{}}}},
		{Target: ep, Fact: &eventv1.Event_JobRegistered{JobRegistered: &eventv1.JobRegistered{JobId: "open"}}},
		{Target: ep, Fact: &eventv1.Event_JobTransitioned{JobTransitioned: &eventv1.JobTransitioned{JobId: "hook", Attempt: 1, State: eventv1.JobState_JOB_STATE_FAILED}}},
		{Target: inventory.AccountTarget("default"), Fact: &eventv1.Event_AccountPolled{AccountPolled: &eventv1.AccountPolled{PollSlotMs: 1_700_000_000_000}}},
	}
	for _, e := range facts {
		subject := event.Subject(event.Kind(e), e.GetTarget())
		if _, err := conn.Publish(ctx, bus.Message{Subject: subject, Data: []byte("\xff\xff")}); err != nil {
			t.Fatal(err)
		}
		if err := store(ctx, conn, e); err != nil {
			t.Fatal(err)
		}
	}
	tracker := job.NewTracker(job.Options{MaxOpen: 10, Fast: time.Second, Slow: time.Second})
	p, err := recall(ctx, conn, metaBucket(t, conn), inventory.New("default", 10), "default", tracker)
	if err != nil {
		t.Fatal(err)
	}
	open, ended := tracker.Len()
	if p.inventory.Len() != 1 || open != 1 || ended != 1 || p.lastSlot.UnixMilli() != 1_700_000_000_000 {
		t.Errorf("%d targets, %d open and %d ended jobs, last slot %v", p.inventory.Len(), open, ended, p.lastSlot)
	}
}

func TestAKeyThatIsSentForAllToReadIsToldOf(t *testing.T) {
	for url, want := range map[string]int{
		"https://api.runpod.ai/v2": 0, "http://127.0.0.1:8080/v2": 0, "http://[::1]/v2": 0, "http://localhost:1/v2": 0,
		"http://10.0.0.7/v2": 1, "http://runpod.example/v2": 1, "http://127.0.0.1.example/v2": 1,
	} {
		c := RunPodConfig{RESTURL: url, ServerlessURL: "https://api.runpod.ai/v2"}
		if got := c.unencrypted(); len(got) != want {
			t.Errorf("%s: told of %v", url, got)
		}
	}
}

// TestMoreJobsThanAreFollowedAtOnceAreReadBack has a log of many jobs that ended, of
// which never more than one was open, and then one that is open still.
func TestMoreJobsThanAreFollowedAtOnceAreReadBack(t *testing.T) {
	conn := servertest.NATS(t).Conn(t)
	ctx := t.Context()
	if _, err := conn.EnsureStream(ctx, bus.Events(0)); err != nil {
		t.Fatal(err)
	}
	ep := &eventv1.Target{Account: "default", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: "ep"}
	tell := func(e *eventv1.Event) {
		t.Helper()
		e.Target = ep
		if err := store(ctx, conn, e); err != nil {
			t.Fatal(err)
		}
	}
	const most = 3
	for i := range 1000 {
		id := fmt.Sprint(i)
		tell(&eventv1.Event{Fact: &eventv1.Event_JobRegistered{JobRegistered: &eventv1.JobRegistered{JobId: id}}})
		tell(&eventv1.Event{Fact: &eventv1.Event_JobTransitioned{
			JobTransitioned: &eventv1.JobTransitioned{JobId: id, Attempt: 1, State: eventv1.JobState_JOB_STATE_COMPLETED},
		}})
	}
	tell(&eventv1.Event{Fact: &eventv1.Event_JobRegistered{JobRegistered: &eventv1.JobRegistered{JobId: "open"}}})
	tracker := job.NewTracker(job.Options{MaxOpen: most, Fast: time.Second, Slow: time.Second})
	if _, err := recall(ctx, conn, metaBucket(t, conn), inventory.New("default", 10), "default", tracker); err != nil {
		t.Fatal(err)
	}
	open := tracker.Open()
	if _, ended := tracker.Len(); len(open) != 1 || open[0].ID != "open" || ended > most {
		t.Errorf("open are %v, and %d ended ones are remembered; want the one that is open, and no more than %d", open, ended, most)
	}
}

// strange is a log of which something else happens before it is read.
type strange struct {
	*bus.Conn
	before func(bus.ReadOptions)
}

func (s strange) Read(ctx context.Context, o bus.ReadOptions, handle func(bus.Delivery) error) error {
	s.before(o)
	return s.Conn.Read(ctx, o, handle)
}

func TestASlowLogIsReadToItsEnd(t *testing.T) {
	conn := servertest.NATS(t).Conn(t)
	ctx := t.Context()
	if _, err := conn.EnsureStream(ctx, bus.Events(0)); err != nil {
		t.Fatal(err)
	}
	ep := &eventv1.Target{Account: "default", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: "ep"}
	for i := range 5 {
		e := &eventv1.Event{Target: ep, Fact: &eventv1.Event_JobRegistered{JobRegistered: &eventv1.JobRegistered{JobId: fmt.Sprint(i)}}}
		if err := store(ctx, conn, e); err != nil {
			t.Fatal(err)
		}
	}
	read := func(h history) int {
		t.Helper()
		n := 0
		if err := readKind(ctx, h, event.KindJobRegistered, time.Time{}, func(bus.Delivery, *eventv1.Event) { n++ }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	slow := strange{conn, func(o bus.ReadOptions) {
		for range 20 { // seconds in which nothing came
			o.Idle()
		}
	}}
	if n := read(slow); n != 5 {
		t.Errorf("%d facts are read of a slow log, want all 5", n)
	}
	emptied := strange{conn, func(bus.ReadOptions) {
		if err := conn.PurgeBefore(ctx, bus.EventsStream, 6); err != nil {
			t.Error(err)
		}
	}}
	if n := read(emptied); n != 0 {
		t.Errorf("%d facts are read of a log that was emptied", n)
	}
}

func TestWhatARefusedKeyMeans(t *testing.T) {
	failure := func(r eventv1.PollFailureReason) *poll.Failure { return &poll.Failure{Reason: r} }
	unauthorized := failure(eventv1.PollFailureReason_POLL_FAILURE_REASON_UNAUTHORIZED)
	forbidden := failure(eventv1.PollFailureReason_POLL_FAILURE_REASON_FORBIDDEN)
	timeout := failure(eventv1.PollFailureReason_POLL_FAILURE_REASON_TIMEOUT)
	for name, test := range map[string]struct {
		endpoints, pods *poll.Failure
		known, ends     bool
	}{
		"both lists work":                             {nil, nil, false, false},
		"a wrong key at the first start":              {unauthorized, unauthorized, false, true},
		"a wrong key of an account that was watched":  {unauthorized, unauthorized, true, false},
		"a key that reads nothing":                    {forbidden, forbidden, false, true},
		"a key that reads endpoints":                  {nil, forbidden, false, false},
		"a key that reads pods":                       {forbidden, nil, false, false},
		"RunPod is down":                              {timeout, timeout, false, false},
		"one list is refused and the other times out": {unauthorized, timeout, false, true},
	} {
		err := checkKey(slog.New(slog.DiscardHandler), test.known, test.endpoints, test.pods)
		if (err != nil) != test.ends {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}
