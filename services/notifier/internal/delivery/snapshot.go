package delivery

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

// snapshotFormat counts the changes of the snapshot that a reader must know.
const snapshotFormat = 1

// Snapshot returns the whole state, which [Core.Restore] takes back. The caller
// adds when the two streams were created, and when the newest message of the
// journal was stored.
func (c *Core) Snapshot(now time.Time) *deliveryv1.Snapshot {
	s := &deliveryv1.Snapshot{
		Format: snapshotFormat, At: timestamppb.New(now),
		AlertsSequence: c.alertsSeq, AlertsStoredAt: stamp(c.alertsAt),
		ShardSequences: slices.Clone(c.shards[:]), Watermarks: map[uint32]*alertv1.Cause{},
		SequenceBase: c.base, HighestSequence: c.highest,
	}
	for partition, why := range c.watermarks {
		s.Watermarks[uint32(partition)] = why
	}
	for _, a := range c.byVersion() {
		if a.state != nil {
			s.Alerts = append(s.Alerts, &deliveryv1.KnownAlert{
				Alert: a.state, Version: a.version, Partition: uint32(a.partition),
				StoredAt: stamp(a.stored), FreeAt: stamp(a.free),
			})
		}
	}
	for _, l := range c.sortedLanes() {
		s.Lanes = append(s.Lanes, l.snapshot())
	}
	for _, w := range c.o.Table.Ways() {
		s.Ways = append(s.Ways, &deliveryv1.Way{Receiver: w.Receiver, Integration: w.Integration})
	}
	return s
}

func (l *lane) snapshot() *deliveryv1.LaneState {
	s := &deliveryv1.LaneState{Lane: l.proto(), ToldAt: stamp(l.toldAt), FlushAt: stamp(l.flushAt)}
	if p := l.pending; p != nil {
		s.Pending, s.Attempts, s.NextAttempt = p.intent, uint32(p.attempts), stamp(p.next)
	}
	for _, m := range l.members {
		s.Members = append(s.Members, m.proto())
	}
	slices.SortFunc(s.Members, func(a, b *deliveryv1.MemberState) int { return cmp.Compare(a.GetAlertId(), b.GetAlertId()) })
	return s
}

// proto returns the member as snapshots and the journal write it.
func (m *member) proto() *deliveryv1.MemberState {
	return &deliveryv1.MemberState{
		AlertId: m.alert.id, Due: m.due, Committed: m.committed, Told: m.told, ToldVersion: m.toldVersion,
	}
}

// Restore takes a snapshot into a new core, whose configuration may be another
// than the one that it was taken under. It returns an error, and leaves the
// core as it was, when the format is not known.
func (c *Core) Restore(s *deliveryv1.Snapshot) error {
	if s.GetFormat() != snapshotFormat {
		return fmt.Errorf("read snapshot: format %d, this release reads %d", s.GetFormat(), snapshotFormat)
	}
	if len(s.GetShardSequences()) != Shards {
		return fmt.Errorf("read snapshot: %d shards, want %d", len(s.GetShardSequences()), Shards)
	}
	c.history = false
	c.alertsSeq, c.alertsAt = s.GetAlertsSequence(), instant(s.GetAlertsStoredAt())
	c.base, c.highest = s.GetSequenceBase(), s.GetHighestSequence()
	c.applied = c.base + Version(c.alertsSeq, 1<<indexBits)
	for partition, why := range s.GetWatermarks() {
		c.watermarks[int(partition)] = why
	}
	copy(c.shards[:], s.GetShardSequences())
	for _, w := range s.GetWays() {
		c.former = append(c.former, route.Way{Receiver: w.GetReceiver(), Integration: w.GetIntegration()})
	}
	for _, k := range s.GetAlerts() {
		a := c.alert(k.GetAlert().GetId())
		a.state, a.version, a.partition = k.GetAlert(), k.GetVersion(), int(k.GetPartition())
		a.stored, a.order = instant(k.GetStoredAt()), orderOf(a.state.GetLabels())
		a.free = instant(k.GetFreeAt())
		if a.firing() {
			c.o.Inhibitor.Fire(a.id, a.state.GetLabels())
		}
	}
	for _, a := range c.alerts {
		// Else the end of its cause would look like none: it would not be held.
		a.quiet = a.firing() && c.o.Inhibitor.Inhibited(a.id)
	}
	for _, ls := range s.GetLanes() {
		c.restoreLane(ls, instant(s.GetAt()))
	}
	for _, a := range c.byVersion() {
		if a.firing() {
			c.place(a, a.stored)
		}
	}
	return nil
}

// restoreLane takes in a lane as it was at the instant at.
func (c *Core) restoreLane(s *deliveryv1.LaneState, at time.Time) {
	l := c.laneOf(s.GetLane())
	l.toldAt, l.flushAt = instant(s.GetToldAt()), instant(s.GetFlushAt())
	for _, ms := range s.GetMembers() {
		m := l.member(c.alert(ms.GetAlertId()))
		m.due, m.committed = ms.GetDue(), ms.GetCommitted()
		m.told, m.toldVersion = ms.GetTold(), ms.GetToldVersion()
		c.highest = max(c.highest, m.toldVersion)
	}
	if s.GetPending() != nil {
		c.highest = max(c.highest, s.GetPending().GetSequence())
		next := instant(s.GetNextAttempt())
		c.replace(l, &message{
			intent: s.GetPending(), journaled: true,
			attempts: int(s.GetAttempts()), next: next, wait: max(0, next.Sub(at)),
		})
	}
}
