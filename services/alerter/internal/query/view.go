package query

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/event"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/state"
)

const (
	// pollEvery is how soon a watcher hears of changes in partitions that run on
	// other replicas. Those that run here are told at once.
	pollEvery = time.Second
	// watcherQueue bounds what waits for one watcher. 1,024 alerts of 2 KiB are
	// 2 MB; whoever is further behind is better served by starting again.
	watcherQueue = 1024
	// maxOver bounds the resolved alerts that are remembered: of up to 12 KiB each, 3 MB.
	maxOver = 256
	// maxWatchers bounds the watchers of a replica, and so their queues to 512 MB.
	maxWatchers = 256
)

// alertReader is the part of the store that a View needs.
type alertReader interface {
	Alerts(ctx context.Context, partitions []int) ([]state.Alerts, error)
}

// View is what this replica knows of all alerts: of its own partitions as they
// are committed, of others as Redis has them, as long as somebody watches. It
// is safe for concurrent use.
type View struct {
	store alertReader
	log   *slog.Logger

	mu       sync.Mutex
	known    [event.Partitions]map[string]entry // guarded by mu
	covered  [event.Partitions]func() (seq uint64, at time.Time)
	watchers map[*watcher]struct{} // guarded by mu
	over     []*alertv1.Alert      // guarded by mu; those that resolved here lately, oldest first
}

// entry is an alert, with the bytes it was read from if it was.
type entry struct {
	alert *alertv1.Alert
	raw   []byte
}

// watcher is a reader of changes.
type watcher struct {
	changes chan *alertv1.Alert
	cut     chan struct{} // closed when it was too slow
}

// NewView returns a View over the store.
func NewView(store alertReader, log *slog.Logger) *View {
	return &View{store: store, log: log, watchers: map[*watcher]struct{}{}}
}

// Loaded takes in all alerts of a partition that begins to run here.
func (v *View) Loaded(partition int, alerts []*alertv1.Alert, covered func() (seq uint64, at time.Time)) {
	fresh := make(map[string]entry, len(alerts))
	for _, a := range alerts {
		fresh[a.GetId()] = entry{alert: proto.CloneOf(a)}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.covered[partition] = covered
	v.replace(partition, fresh)
}

// Changed takes in alerts of a partition that runs here.
func (v *View) Changed(partition int, alerts []*alertv1.Alert) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known[partition] == nil {
		v.known[partition] = map[string]entry{}
	}
	for _, a := range alerts {
		if a.GetState() == alertv1.AlertState_ALERT_STATE_RESOLVED {
			delete(v.known[partition], a.GetId())
			v.over = append(v.over, a)
			if len(v.over) > maxOver {
				v.over = slices.Delete(v.over, 0, len(v.over)-maxOver)
			}
		} else {
			v.known[partition][a.GetId()] = entry{alert: a}
		}
		v.tell(a)
	}
}

// Gone takes in that a partition does not run here any more.
func (v *View) Gone(partition int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.covered[partition] = nil
}

// Covered tells up to where the log is dealt with for a partition, if it runs here.
func (v *View) Covered(partition int) (seq uint64, at time.Time, ok bool) {
	v.mu.Lock()
	covered := v.covered[partition]
	v.mu.Unlock()
	if covered == nil {
		return 0, time.Time{}, false
	}
	seq, at = covered()
	return seq, at, true
}

// Run keeps what other replicas' partitions hold up to date while somebody
// watches, until ctx ends, and returns ctx's error.
func (v *View) Run(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if !v.watched() {
			continue
		}
		if err := v.poll(ctx); err != nil && ctx.Err() == nil {
			v.log.LogAttrs(ctx, slog.LevelWarn, "alerts of other replicas not read; will try again", slog.Any("err", err))
		}
	}
}

func (v *View) watched() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.watchers) > 0
}

// poll reads the alerts of the partitions that run elsewhere.
func (v *View) poll(ctx context.Context) error {
	v.mu.Lock()
	var elsewhere []int
	for p, covered := range v.covered {
		if covered == nil {
			elsewhere = append(elsewhere, p)
		}
	}
	v.mu.Unlock()
	if len(elsewhere) == 0 {
		return nil
	}
	all, err := v.store.Alerts(ctx, elsewhere)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, alerts := range all {
		// A partition whose head is gone is being loaded anew; its alerts are not over.
		if v.covered[alerts.Partition] != nil || alerts.Head == nil {
			continue
		}
		fresh, err := v.decode(alerts)
		if err != nil {
			return err
		}
		v.replace(alerts.Partition, fresh)
	}
	return nil
}

// decode decodes the alerts of a partition, but for those whose bytes are
// known. The caller holds mu.
func (v *View) decode(alerts state.Alerts) (map[string]entry, error) {
	fresh := make(map[string]entry, len(alerts.Active))
	for id, raw := range alerts.Active {
		if old, ok := v.known[alerts.Partition][id]; ok && bytes.Equal(old.raw, raw) {
			fresh[id] = old
			continue
		}
		alert, err := engine.DecodeAlert(raw)
		if err != nil {
			return nil, fmt.Errorf("alert %s of partition %d: %w", id, alerts.Partition, err)
		}
		fresh[id] = entry{alert: alert, raw: raw}
	}
	return fresh, nil
}

// replace puts fresh in the place of what is known of a partition and tells
// watchers the difference. The caller holds mu.
func (v *View) replace(partition int, fresh map[string]entry) {
	old := v.known[partition]
	v.known[partition] = fresh
	if len(v.watchers) == 0 {
		return
	}
	for id, e := range fresh {
		if before, ok := old[id]; !ok || !sameNews(before.alert, e.alert) {
			v.tell(e.alert)
		}
	}
	for id, e := range old {
		if _, still := fresh[id]; !still {
			// When it was over is not known here; that it is, is.
			over := proto.CloneOf(e.alert)
			over.State = alertv1.AlertState_ALERT_STATE_RESOLVED
			v.tell(over)
		}
	}
}

// sameNews says that two states of an alert differ in nothing that is told as a
// change: that it became worse is not.
func sameNews(a, b *alertv1.Alert) bool {
	if proto.Equal(a, b) {
		return true
	}
	if proto.Equal(a.GetEvidence(), b.GetEvidence()) || a.GetEvidence() == nil || b.GetEvidence() == nil {
		return false
	}
	a = proto.CloneOf(a)
	a.Evidence.Worst = b.GetEvidence().GetWorst()
	return proto.Equal(a, b)
}

// resolved returns the alerts that resolved here lately, newest first.
func (v *View) resolved() []*alertv1.Alert {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := slices.Clone(v.over)
	slices.Reverse(all)
	return all
}

// tell queues an alert for all watchers. The caller holds mu.
func (v *View) tell(a *alertv1.Alert) {
	for w := range v.watchers {
		select {
		case w.changes <- a:
		default:
			delete(v.watchers, w)
			close(w.cut)
		}
	}
}

// errTooMany says that there are maxWatchers watchers.
var errTooMany = fmt.Errorf("%d watchers are served already", maxWatchers)

// watch returns all alerts there are, sorted by id, and a watcher that gets
// every change from then on. It must be given to leave.
func (v *View) watch(ctx context.Context) ([]*alertv1.Alert, *watcher, error) {
	// What other replicas' partitions hold may be old if nobody watched.
	if err := v.poll(ctx); err != nil {
		return nil, nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.watchers) >= maxWatchers {
		return nil, nil, errTooMany
	}
	w := &watcher{changes: make(chan *alertv1.Alert, watcherQueue), cut: make(chan struct{})}
	v.watchers[w] = struct{}{}
	var alerts []*alertv1.Alert
	for _, known := range v.known {
		for _, e := range known {
			alerts = append(alerts, e.alert)
		}
	}
	slices.SortFunc(alerts, func(a, b *alertv1.Alert) int { return strings.Compare(a.GetId(), b.GetId()) })
	return alerts, w, nil
}

func (v *View) leave(w *watcher) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.watchers, w)
}
