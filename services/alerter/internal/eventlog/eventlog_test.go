package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/eventlog"
)

// fixture is a log on a real NATS. Its stream's end can be moved back, which
// no API of NATS does and a restored backup can.
type fixture struct {
	*bus.Conn
	t      *testing.T
	bucket *bus.Bucket
	cutTo  uint64 // LastSeq as told; 0 tells the truth
	age    time.Duration
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	conn := servertest.NATS(t).Conn(t)
	if _, err := conn.EnsureStream(t.Context(), bus.Events(64<<20)); err != nil {
		t.Fatal(err)
	}
	bucket, err := conn.Bucket(t.Context(), bus.BucketConfig{Name: "tocsin-meta"})
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{Conn: conn, t: t, bucket: bucket}
}

func (f *fixture) StreamState(ctx context.Context, name string) (bus.StreamState, error) {
	s, err := f.Conn.StreamState(ctx, name)
	if f.cutTo > 0 {
		s.LastSeq = f.cutTo
	}
	s.Created = s.Created.Add(f.age)
	return s, err
}

func (f *fixture) open() *eventlog.Log {
	f.t.Helper()
	l, err := eventlog.Open(f.t.Context(), f, bus.Events(64<<20), f.bucket, slog.New(slog.DiscardHandler))
	if err != nil {
		f.t.Fatal(err)
	}
	return l
}

// publish stores n messages and returns the position at the last.
func (f *fixture) publish(n int, logID string) *statev1.Position {
	f.t.Helper()
	var seq uint64
	for range n {
		ack, err := f.Publish(f.t.Context(), bus.Message{Subject: "tocsin.event.tick.all"})
		if err != nil {
			f.t.Fatal(err)
		}
		seq = ack.Seq
	}
	return f.position(seq, logID)
}

func (f *fixture) position(seq uint64, logID string) *statev1.Position {
	f.t.Helper()
	d, ok, err := f.At(f.t.Context(), eventlog.Stream, seq)
	if err != nil || !ok {
		f.t.Fatalf("message %d: %v, %v", seq, ok, err)
	}
	return &statev1.Position{LogId: logID, AppliedSequence: seq, AppliedTime: timestamppb.New(d.Time)}
}

func TestReplicasAgreeOnTheLog(t *testing.T) {
	f := newFixture(t)
	a, b := f.open(), f.open()
	first := a.ID()
	if b.ID() != first || !a.Original() || !b.Original() {
		t.Errorf("logs %s and %s, original %v and %v; want one original", a.ID(), b.ID(), a.Original(), b.Original())
	}
	_, changed := a.Changed()
	if err := a.Raise(t.Context(), first, ""); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("a raise is not told")
	}
	if err := b.Raise(t.Context(), first, ""); err != nil {
		t.Fatal(err)
	}
	if a.ID() <= first || a.Original() {
		t.Errorf("log %s after %s, original %v; want a younger one that is not", a.ID(), first, a.Original())
	}
	if b.ID() != a.ID() {
		t.Errorf("the second raise of the same log gave %s, want %s", b.ID(), a.ID())
	}
}

func TestAStreamThatWasMadeAnewIsAnotherLog(t *testing.T) {
	for name, age := range map[string]time.Duration{
		"later":                              time.Hour,
		"earlier, by a clock that went back": -time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			l := f.open()
			first := l.ID()
			f.age = age
			if err := l.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if l.ID() <= first || l.Original() {
				t.Errorf("log %s after %s, original %v", l.ID(), first, l.Original())
			}
		})
	}
}

func TestALogIsRaisedAboveWhatWasTold(t *testing.T) {
	f := newFixture(t)
	l := f.open()
	id := l.ID()
	generation, rest, _ := strings.Cut(id, "-")
	told := fmt.Sprintf("9%s-%s", generation[1:], rest)
	if err := l.Raise(t.Context(), id, told); err != nil {
		t.Fatal(err)
	}
	if l.ID() <= told {
		t.Errorf("log %s is not above %s", l.ID(), told)
	}
}

// TestALogThatCannotBeYoungerStaysWhatItIs tells of logs that no alerter named.
func TestALogThatCannotBeYoungerStaysWhatItIs(t *testing.T) {
	for name, told := range map[string]string{
		"the last of all":                      "999999999999-9999999999999999999",
		"of the last generation":               "999999999999-9000000000000000000",
		"of a generation without enough room":  "99999999999999999999-0000000000000000001",
		"of a generation that is no number":    "later-0000000000000000001",
		"of no form at all":                    "~",
		"of a generation after the last of us": "9999999999990-0000000000000000001",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			l := f.open()
			id, changed := l.Changed()
			if err := l.Raise(t.Context(), id, told); !errors.Is(err, eventlog.ErrNoYounger) {
				t.Errorf("Raise: %v, want that there is none", err)
			}
			if l.ID() != id {
				t.Errorf("the log became %s", l.ID())
			}
			select {
			case <-changed:
				t.Error("a change is told")
			default:
			}
		})
	}
}

func TestTheLastGenerationIsYoungerOnceMore(t *testing.T) {
	f := newFixture(t)
	l := f.open()
	first := l.ID()
	told := "999999999998-9999999999999999999"
	if err := l.Raise(t.Context(), first, told); err != nil || l.ID() <= told || len(l.ID()) != len(first) {
		t.Fatalf("log %s after %s: %v", l.ID(), told, err)
	}
	last := l.ID()
	if err := l.Raise(t.Context(), last, ""); !errors.Is(err, eventlog.ErrNoYounger) {
		t.Errorf("Raise: %v, want that there is none", err)
	}
	f.age = time.Hour // the stream is made anew
	if err := l.Refresh(t.Context()); err != nil || l.ID() <= last || len(l.ID()) != len(first) {
		t.Errorf("log %s after %s: %v", l.ID(), last, err)
	}
}

func TestALogThatTookTheOldOnesPlaceIsNotRaisedAgain(t *testing.T) {
	f := newFixture(t)
	slow, quick := f.open(), f.open()
	old := slow.ID()
	if err := quick.Raise(t.Context(), old, ""); err != nil {
		t.Fatal(err)
	}
	if err := slow.Raise(t.Context(), old, quick.ID()); err != nil {
		t.Fatal(err)
	}
	if slow.ID() != quick.ID() {
		t.Errorf("log %s was raised to %s by who had not seen it", quick.ID(), slow.ID())
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		position func(f *fixture, logID string) *statev1.Position
		want     eventlog.Verdict
	}{
		"nothing applied of a log that is whole": {
			func(f *fixture, id string) *statev1.Position {
				f.publish(3, id)
				return &statev1.Position{LogId: id}
			}, eventlog.Fits,
		},
		"nothing applied of an empty log": {
			func(_ *fixture, id string) *statev1.Position { return &statev1.Position{LogId: id} }, eventlog.Fits,
		},
		"everything applied": {
			func(f *fixture, id string) *statev1.Position { return f.publish(3, id) }, eventlog.Fits,
		},
		"a part applied": {
			func(f *fixture, id string) *statev1.Position {
				p := f.publish(3, id)
				f.publish(3, id)
				return p
			}, eventlog.Fits,
		},
		"the next message is the first kept": {
			func(f *fixture, id string) *statev1.Position {
				p := f.publish(3, id)
				f.publish(3, id)
				f.purge(4)
				return p
			}, eventlog.Fits,
		},
		"everything applied, and purged": {
			func(f *fixture, id string) *statev1.Position {
				p := f.publish(3, id)
				f.purge(4)
				return p
			}, eventlog.Fits,
		},
		"messages after it are gone": {
			func(f *fixture, id string) *statev1.Position {
				p := f.publish(3, id)
				f.publish(3, id)
				f.purge(5)
				return p
			}, eventlog.Gap,
		},
		"nothing applied, and the start is gone": {
			func(f *fixture, id string) *statev1.Position {
				f.publish(3, id)
				f.purge(2)
				return &statev1.Position{LogId: id}
			}, eventlog.Gap,
		},
		"the log ends before it": {
			func(f *fixture, id string) *statev1.Position {
				p := f.publish(3, id)
				f.cutTo = 2
				return p
			}, eventlog.Cut,
		},
		"another message is in its place": {
			func(f *fixture, id string) *statev1.Position {
				p := f.publish(3, id)
				p.AppliedTime = timestamppb.New(p.AppliedTime.AsTime().Add(time.Nanosecond))
				return p
			}, eventlog.Cut,
		},
		"another log": {
			func(f *fixture, _ string) *statev1.Position { return f.publish(3, "other") }, eventlog.OtherLog,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			l := f.open()
			got, err := l.Check(t.Context(), c.position(f, l.ID()))
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("Check = %v, want %v", got, c.want)
			}
		})
	}
}

func (f *fixture) purge(before uint64) {
	f.t.Helper()
	if err := f.PurgeBefore(f.t.Context(), eventlog.Stream, before); err != nil {
		f.t.Fatal(err)
	}
}

func TestALogThatIsCutWhileItIsReadIsRaised(t *testing.T) {
	f := newFixture(t)
	l := f.open()
	f.publish(3, l.ID())
	f.cutTo = 2
	id, changed := l.Changed()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() {
		<-changed
		cancel()
	}()
	reached := func() (string, bus.Mark) { return id, bus.Mark{Seq: 3} }
	if err := l.Run(ctx, reached); ctx.Err() == nil || err == nil {
		t.Errorf("Run: %v", err)
	}
	if l.ID() <= id {
		t.Errorf("log %s, want one younger than %s", l.ID(), id)
	}
}

func TestHistoryGivesWayBeforePublishingIsRefused(t *testing.T) {
	const partitions = 2
	for name, c := range map[string]struct {
		maxBytes int64
		older    map[int]uint64
		first    uint64
	}{
		"a log with room keeps all":                        {1 << 30, map[int]uint64{0: 80, 1: 90}, 1},
		"a full log loses an eighth":                       {1000, map[int]uint64{0: 80, 1: 90}, 11},
		"what a snapshot is replayed from stays":           {1000, map[int]uint64{0: 80, 1: 5}, 5},
		"a partition with one snapshot needs all":          {1000, map[int]uint64{0: 80}, 1},
		"a log without a limit keeps all":                  {-1, map[int]uint64{0: 80, 1: 90}, 1},
		"a partition at the very start keeps all as it is": {1000, map[int]uint64{0: 80, 1: 1}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.publish(80, "log")
			limited := limited{f, c.maxBytes}
			h := eventlog.NewHistory(limited, partitions,
				func(context.Context) (map[int]uint64, error) { return c.older, nil }, slog.New(slog.DiscardHandler), nil)
			if err := h.Trim(t.Context()); err != nil {
				t.Fatal(err)
			}
			state, err := f.StreamState(t.Context(), eventlog.Stream)
			if err != nil {
				t.Fatal(err)
			}
			if state.FirstSeq != c.first {
				t.Errorf("the log begins at %d, want %d", state.FirstSeq, c.first)
			}
		})
	}
}

// limited tells another limit than the stream's.
type limited struct {
	*fixture
	maxBytes int64
}

func (l limited) StreamState(ctx context.Context, name string) (bus.StreamState, error) {
	s, err := l.fixture.StreamState(ctx, name)
	s.MaxBytes = l.maxBytes
	return s, err
}
