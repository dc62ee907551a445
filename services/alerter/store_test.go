package alerter_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/snapshot"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/state"
)

// TestAHoleInTheMiddleIsPassed removes one message that nobody has read yet.
func TestAHoleInTheMiddleIsPassed(t *testing.T) {
	w := newWorld(t)
	w.start().await(64).inForce().stop()
	gone := w.queue("one", 20)
	w.queue("one", 30)
	w.nats.Call(t, "STREAM.MSG.DELETE."+bus.EventsStream, fmt.Sprintf(`{"seq":%d}`, gone))
	r := w.start().await(64)
	if told := w.notifier.await("one", "f")[0]; told.GetCause().GetSequence() != gone+1 {
		t.Errorf("it fired at message %d, want %d", told.GetCause().GetSequence(), gone+1)
	}
	if n := r.metric("tocsin_alerter_holes_passed_total"); n < 1 {
		t.Error("the hole is not counted")
	}
}

// TestARuleSetThatNobodyKeepsChangesNothing activates a hash out of thin air.
func TestARuleSetThatNobodyKeepsChangesNothing(t *testing.T) {
	w := newWorld(t)
	r := w.start().await(64).inForce()
	data, err := event.Marshal(&eventv1.Event{
		Source: eventv1.Source_SOURCE_TOCSIN,
		Fact:   &eventv1.Event_RuleSetActivated{RuleSetActivated: &eventv1.RuleSetActivated{Hash: "nothing"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	partition := event.Partition(event.Token(endpoint("one")))
	subject := event.PartitionSubject(partition, event.KindRuleSetActivated)
	if _, err := w.conn.Publish(t.Context(), bus.Message{Subject: subject, Data: data}); err != nil {
		t.Fatal(err)
	}
	w.queue("one", 20)
	w.notifier.await("one", "f")
	if n := r.metric("tocsin_alerter_rule_problems_total", "missing_rule_set"); n != 1 {
		t.Errorf("%v missing rule sets are counted, want 1", n)
	}
}

// store opens the alerter's Redis beside it.
func (w *world) store() *state.Store {
	s := state.Open(state.Options{Address: w.redis.Addr(), Log: slog.New(slog.DiscardHandler)})
	w.t.Cleanup(s.Close)
	return s
}

// TestAStolenPartitionIsLoadedAnew has somebody else take a partition's head
// while the alerter's lease holds.
func TestAStolenPartitionIsLoadedAnew(t *testing.T) {
	w := newWorld(t)
	r := w.start().await(64).inForce()
	w.queue("one", 20)
	w.notifier.await("one", "f")
	partition := event.Partition(event.Token(endpoint("one")))
	thief := w.store()
	eventually(t, "the theft", func() error {
		saved, err := thief.Read(t.Context(), partition)
		if err != nil {
			return err
		}
		_, err = thief.Take(t.Context(), partition, saved)
		return err
	})
	w.queue("one", 0)
	wantOrder(t, w.notifier.await("one", "fr"))
	if n := r.metric("tocsin_alerter_reloads_total", "not_owner"); n < 1 {
		t.Error("the theft was not noticed")
	}
}

// TestAStateOfANewerReleaseIsGivenBack leaves a partition alone that a later
// version wrote.
func TestAStateOfANewerReleaseIsGivenBack(t *testing.T) {
	const partition = 7
	for name, fromTheFuture := range map[string]func(w *world, head *statev1.StoredHead){
		"by the format of its head": func(w *world, head *statev1.StoredHead) {
			head.Format++
			w.set("{tocsin:07}:head", marshal(w.t, head))
		},
		"by the format of its fold in Redis": func(w *world, head *statev1.StoredHead) {
			head.Fold = newerFold(w.t, head.GetFold())
			w.set("{tocsin:07}:head", marshal(w.t, head))
		},
		"by the format of its fold in a snapshot": func(w *world, head *statev1.StoredHead) {
			fold := marshal(w.t, &statev1.Snapshot{Head: decodeHead(w.t, newerFold(w.t, head.GetFold()))})
			w.saveSnapshot(partition, &statev1.StoredSnapshot{Position: head.GetPosition(), Fold: fold})
			w.redis.FlushAll(w.t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start().await(64).inForce().stop()
			saved, err := w.store().Read(t.Context(), partition)
			if err != nil {
				t.Fatal(err)
			}
			fromTheFuture(w, saved.Stored)
			before, err := w.store().Read(t.Context(), partition)
			if err != nil {
				t.Fatal(err)
			}
			w.start().await(63)
			after, err := w.store().Read(t.Context(), partition)
			if err != nil {
				t.Fatal(err)
			}
			// Whoever loads a partition writes its head.
			if !bytes.Equal(after.Head, before.Head) {
				t.Error("the newer state was written over")
			}
		})
	}
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func decodeHead(t *testing.T, data []byte) *statev1.Head {
	t.Helper()
	head := new(statev1.Head)
	if err := proto.Unmarshal(data, head); err != nil {
		t.Fatal(err)
	}
	return head
}

// newerFold returns a fold's head as the next version would write it.
func newerFold(t *testing.T, fold []byte) []byte {
	t.Helper()
	head := decodeHead(t, fold)
	head.Format++
	return marshal(t, head)
}

// saveSnapshot puts a snapshot in the place of one that the alerter saved.
func (w *world) saveSnapshot(partition int, snap *statev1.StoredSnapshot) {
	w.t.Helper()
	objects, err := w.conn.Objects(w.t.Context(), bus.SnapshotsBucket)
	if err != nil {
		w.t.Fatal(err)
	}
	store, err := snapshot.NewStore(objects)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := store.Save(w.t.Context(), partition, snap); err != nil {
		w.t.Fatal(err)
	}
}

// set writes a key of Redis.
func (w *world) set(key string, value []byte) {
	w.t.Helper()
	conn, err := net.Dial("unix", w.redis.Addr())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(value), value)
	answer := make([]byte, 5)
	if _, err := conn.Read(answer); err != nil || string(answer) != "+OK\r\n" {
		w.t.Fatalf("SET answered %q, %v", answer, err)
	}
}
