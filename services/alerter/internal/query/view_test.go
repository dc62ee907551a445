package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/state"
)

const (
	pending  = alertv1.AlertState_ALERT_STATE_PENDING
	firing   = alertv1.AlertState_ALERT_STATE_FIRING
	resolved = alertv1.AlertState_ALERT_STATE_RESOLVED
)

// redis is what other replicas have committed.
type redis struct {
	mu     sync.Mutex
	alerts map[int][]*alertv1.Alert // guarded by mu; by partition
	lost   bool                     // guarded by mu; heads are gone
	err    error                    // guarded by mu
	reads  int                      // guarded by mu
}

func (r *redis) set(partition int, alerts ...*alertv1.Alert) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.alerts[partition] = alerts
}

func (r *redis) Alerts(_ context.Context, partitions []int) ([]state.Alerts, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads++
	if r.err != nil {
		return nil, r.err
	}
	var all []state.Alerts
	for _, p := range partitions {
		stored := state.Alerts{Partition: p, Head: &statev1.StoredHead{}, Active: map[string][]byte{}}
		if r.lost {
			stored.Head = nil
		} else {
			for _, a := range r.alerts[p] {
				raw, err := proto.Marshal(&statev1.AlertRecord{Alert: a})
				if err != nil {
					return nil, err
				}
				stored.Active[a.GetId()] = raw
			}
		}
		all = append(all, stored)
	}
	return all, nil
}

func alert(id string, s alertv1.AlertState) *alertv1.Alert { return &alertv1.Alert{Id: id, State: s} }

func texts(alerts []*alertv1.Alert) []string {
	list := []string{}
	for _, a := range alerts {
		list = append(list, fmt.Sprintf("%s %v", a.GetId(), a.GetState()))
	}
	return list
}

func ready(w *watcher) []*alertv1.Alert {
	var got []*alertv1.Alert
	for {
		select {
		case a := <-w.changes:
			got = append(got, a)
		default:
			return got
		}
	}
}

func begin(t *testing.T, r *redis) *View {
	v := NewView(r, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	return v
}

func nowhere() (uint64, time.Time) { return 0, time.Time{} }

func want(t *testing.T, what string, got []*alertv1.Alert, want ...string) {
	t.Helper()
	if want == nil {
		want = []string{}
	}
	list := texts(got)
	slices.Sort(list)
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestAWatchBringsOwnAndForeignChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &redis{alerts: map[int][]*alertv1.Alert{}}
		v := begin(t, r)
		v.Loaded(1, []*alertv1.Alert{alert("own", firing)}, nowhere)
		r.set(1, alert("stale", firing)) // of an own partition nothing is read
		r.set(2, alert("foreign", pending))
		initial, w, err := v.watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want(t, "at the beginning", initial, "foreign ALERT_STATE_PENDING", "own ALERT_STATE_FIRING")

		v.Changed(1, []*alertv1.Alert{alert("own", resolved), alert("other", firing)})
		want(t, "own changes, at once", ready(w), "other ALERT_STATE_FIRING", "own ALERT_STATE_RESOLVED")

		r.set(2, alert("foreign", firing), alert("new", pending))
		time.Sleep(2 * pollEvery)
		want(t, "foreign changes", ready(w), "foreign ALERT_STATE_FIRING", "new ALERT_STATE_PENDING")
		r.set(2, alert("new", pending))
		time.Sleep(2 * pollEvery)
		want(t, "a foreign alert that is over", ready(w), "foreign ALERT_STATE_RESOLVED")
		time.Sleep(2 * pollEvery)
		want(t, "nothing twice", ready(w))
		v.leave(w)
		v.Changed(1, []*alertv1.Alert{alert("other", resolved)})
		want(t, "nothing after it left", ready(w))
	})
}

func TestAPartitionThatMovesTellsTheDifference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &redis{alerts: map[int][]*alertv1.Alert{}}
		v := begin(t, r)
		r.set(1, alert("a", pending), alert("b", firing))
		_, w, err := v.watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		v.Loaded(1, []*alertv1.Alert{alert("a", firing), alert("b", firing)}, nowhere)
		want(t, "what changed while it moved here", ready(w), "a ALERT_STATE_FIRING")
		v.Gone(1)
		r.set(1, alert("a", firing))
		time.Sleep(2 * pollEvery)
		want(t, "what changed after it moved away", ready(w), "b ALERT_STATE_RESOLVED")
		r.mu.Lock()
		r.lost = true
		r.mu.Unlock()
		time.Sleep(2 * pollEvery)
		want(t, "a state that was lost ends no alert", ready(w))
	})
}

func TestAWatcherThatIsTooSlowIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := begin(t, &redis{alerts: map[int][]*alertv1.Alert{}})
		v.Loaded(1, nil, nowhere)
		_, slow, err := v.watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, quick, err := v.watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range watcherQueue + 1 {
			v.Changed(1, []*alertv1.Alert{alert(fmt.Sprint(i), firing)})
			if n := len(ready(quick)); n != 1 {
				t.Fatalf("the quick one got %d changes, want 1", n)
			}
		}
		select {
		case <-slow.cut:
		default:
			t.Error("the slow one was not cut")
		}
		select {
		case <-quick.cut:
			t.Error("the quick one was cut")
		default:
		}
	})
}

func TestNobodyWatchingCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &redis{alerts: map[int][]*alertv1.Alert{}}
		begin(t, r)
		time.Sleep(time.Minute)
		if r.reads != 0 {
			t.Errorf("Redis was read %d times", r.reads)
		}
	})
}

func TestWatchersAreBounded(t *testing.T) {
	v := NewView(&redis{alerts: map[int][]*alertv1.Alert{}}, slog.New(slog.DiscardHandler))
	for range maxWatchers {
		if _, _, err := v.watch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := v.watch(t.Context()); !errors.Is(err, errTooMany) {
		t.Errorf("one too many: %v", err)
	}
}

func TestAWatchNeedsRedisToBegin(t *testing.T) {
	v := NewView(&redis{err: errors.New("away")}, slog.New(slog.DiscardHandler))
	if _, _, err := v.watch(t.Context()); err == nil {
		t.Error("it began without Redis")
	}
}
