// Package delivery decides what every receiver is told, and when.
//
// It is a pure state machine: alerts, journal records, results of attempts and
// the present instant go in; journal records and attempts to start come out. It
// reads no clock, store, network or log. Decisions are made by level: what a
// receiver should know of its group is compared with what it was told, so that
// nothing depends on having seen a certain moment.
//
// What it promises for each lane (one integration of one receiver, one group of
// alerts), over any sequence of failures and restarts:
//
//   - an alert that fired while it was routed here and not inhibited, nor had
//     been within the hold, is told; if it is over before that, it is told once,
//     as resolved, to those who want to hear of ends;
//   - what was told as firing is told as resolved later, also when it is
//     inhibited or routed elsewhere by then, or when its receiver was renamed or
//     has another URL; not when the receiver is gone;
//   - a message is journaled before its first attempt, its body never changes,
//     one attempt is in flight at a time, and none starts for a message that a
//     newer one replaced.
//
// A message whose schedule is used up counts as told here; the caller counts it
// as dead.
package delivery

import (
	"hash/fnv"
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

const (
	// Shards is the number of subjects that the journal is spread over, for the
	// life of the stream.
	Shards = 16
	// maxMentions bounds the alerts in one message, as a batch of ALERTS does.
	maxMentions = 500
	// maxBody bounds a message of more than one alert, so that a record fits
	// twice into a journal message of 512 KiB. What does not fit follows.
	maxBody = 240 << 10
	// maxSingle bounds a message of one alert, which has a record of its own:
	// JetStream takes 1 MiB, of which the lane's labels and key need up to 100 kB.
	maxSingle = 900_000
	// slimLabels bounds each set of labels in a message that was larger, in bytes.
	slimLabels = 1 << 10
	// maxInFlight bounds the attempts in flight per integration: with a receiver
	// that takes 100 ms, 160 messages a second.
	maxInFlight = 16
	// quietRecheck is how long a lane whose alerts are all inhibited waits
	// before it asks again whether a repetition is due.
	quietRecheck = time.Minute
)

// Notice is a message to be rendered.
type Notice struct {
	// ID names the message in all its attempts.
	ID string
	// Lane is to whom and about which group.
	Lane route.Lane
	// GroupLabels are the labels that define the group.
	GroupLabels map[string]string
	// RouteLabels are the labels of the route.
	RouteLabels map[string]string
	// Reason is why it is sent, as Alertmanager's notification_reason.
	Reason string
	// Sequence never falls within a lane.
	Sequence uint64
	// Alerts are what it is about, ordered by their labels.
	Alerts []Alert
	// Truncated is how many more alerts the group has that the integration's
	// bound left out.
	Truncated int
}

// Alert is one alert of a notice.
type Alert struct {
	// Alert is the alert as it is now. It must not be changed.
	Alert *alertv1.Alert
	// Firing tells firing from resolved.
	Firing bool
	// Changed says that the receiver does not know this state yet.
	Changed bool
	// Sequence is the place of the alert's last change among all changes.
	Sequence uint64
}

// Body is a rendered notice.
type Body struct {
	// ContentType is its media type.
	ContentType string
	// Bytes are sent as they are in every attempt.
	Bytes []byte
}

// Options are what a [Core] decides by.
type Options struct {
	// Table says which lanes an alert belongs to.
	Table *route.Table
	// Inhibitor says which alerts are kept quiet; it must be empty, and the Core
	// owns it from then on.
	Inhibitor *route.Inhibitor
	// Render writes a message. It must be pure.
	Render func(Notice) Body
	// ConfigHash names the configuration in the journal.
	ConfigHash string
	// Hold is how long an alert that was inhibited must be free of that before it
	// is told: symptoms often outlive their cause by a moment.
	Hold time.Duration
	// Start is when this process began to lead. Repetitions count from it, so
	// that a start after a pause repeats nothing.
	Start time.Time
}

// Core is the state machine. One goroutine owns it.
type Core struct {
	o      Options
	alerts map[string]*alert     // by id; what fires, and what someone is still to hear of
	lanes  map[route.Lane]*lane  // with at least one alert or a message
	sent   map[string]*lane      // by the id of the pending message
	pools  map[integration]*pool // by what they deliver to
	queue  deadlines             // when to look at which lane
	out    Actions               // what Step returns next
	shards [Shards]uint64        // last sequence applied of each shard
	former []route.Way           // the integrations of the snapshot

	applied    uint64                 // version of the last transition applied
	base       uint64                 // what is added to places in this stream of alerts to make versions
	highest    uint64                 // the highest version that the journal speaks of
	watermarks map[int]*alertv1.Cause // by partition, the newest cause applied
	alertsSeq  uint64                 // sequence of the last message of ALERTS applied
	alertsAt   time.Time              // when that message was stored
	rebased    time.Time              // until when ALERTS may repeat what is known
	history    bool                   // what is replayed happened before anyone was to be told
	live       bool                   // replay is over
}

// New returns a core that knows nothing. Feed it the journal, then ALERTS, then
// call [Core.GoLive]. What ALERTS says before that is history of which only what
// still fires is told; [Core.Restore] changes that.
func New(o Options) *Core {
	return &Core{
		o:       o,
		alerts:  map[string]*alert{},
		lanes:   map[route.Lane]*lane{},
		sent:    map[string]*lane{},
		pools:   map[integration]*pool{},
		history: true,

		watermarks: map[int]*alertv1.Cause{},
	}
}

// ShardOf returns the shard of a group.
func ShardOf(groupKey string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(groupKey))
	return int(h.Sum32() % Shards)
}

// Actions are what the owner of a [Core] must do next.
type Actions struct {
	// Records are to be journaled, in order within each shard.
	Records []ShardRecord
	// Attempts are to be started now; [Core.Finished] must be called for each.
	Attempts []Attempt
	// Superseded names the lanes of messages that were replaced or dropped
	// before they were delivered.
	Superseded []route.Lane
	// Dead names the lanes of messages that were given up without an attempt.
	Dead []route.Lane
	// Cut names the lanes of messages that were too large for the journal and tell
	// less of their alert.
	Cut []route.Lane
	// CutAlerts counts the alerts of which less is kept than was said.
	CutAlerts int
}

// ShardRecord is a record and where it belongs.
type ShardRecord struct {
	// Shard is 0 to Shards-1.
	Shard int
	// Record is the record.
	Record *deliveryv1.Record
}

// Attempt is one attempt to deliver a message.
type Attempt struct {
	// ID names the message.
	ID string
	// Lane is to whom.
	Lane route.Lane
	// Number counts the attempts of this message from 1.
	Number int
	// Body is what to send.
	Body Body
	// Alerts are the ids of the alerts it is about, for the log.
	Alerts []string
	// StoredAt is when the newest change in it was stored; zero in a repetition.
	StoredAt time.Time
}

// Outcome is what became of an attempt.
type Outcome struct {
	// Told says that the receiver answered 2xx.
	Told bool
	// Gone says that the receiver answered 410 and wants nothing more.
	Gone bool
	// Canceled says that the attempt was given up by us; nothing is recorded.
	Canceled bool
	// Throttled says that the receiver asked all its messages to wait.
	Throttled bool
	// RetryAfter is what the receiver asked for. Zero asks nothing.
	RetryAfter time.Duration
	// Status is the HTTP status. 0 when there was no answer.
	Status int
	// Error is what went wrong, without secrets.
	Error string
}

// Verdict is what follows from an outcome.
type Verdict struct {
	// Result is TOLD, FAILED or DEAD; UNSPECIFIED when nothing follows.
	Result deliveryv1.Outcome
	// RetryAt is when the next attempt is due, if FAILED.
	RetryAt time.Time
}
