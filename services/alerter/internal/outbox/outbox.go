// Package outbox brings committed transitions to the notifier: each partition's
// in order, one batch in flight, again and again until they are stored.
//
// A Queue holds what is committed and not acknowledged. The notifier drops what
// it has already, so a batch whose answer was lost is simply sent again. A
// notifier that is away costs delay and nothing else, and so does one that
// refuses a transition: what follows must not overtake it, so it is kept and
// sent again until a newer notifier takes it. A full queue stops the partition
// that feeds it. Only a transition that is above the notifier's bound even
// without its evidence is given up.
package outbox

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

const (
	// Capacity is how many transitions of one partition may wait. At about 2 KiB
	// each, 64 full partitions are 1.3 GB: far more than an hour of alerts.
	Capacity = 10_000
	// batchCount and batchBytes bound a batch: the notifier stores it as one
	// message, whose bound is 512 KiB. 4 KiB are left for the envelope.
	batchCount = 500
	batchBytes = 508 << 10
	// storeBytes is that bound of 512 KiB: a transition above it is refused
	// alone, too.
	storeBytes = 512 << 10
)

// Compare orders causes by log, sequence and index. An absent cause comes first.
func Compare(a, b *alertv1.Cause) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	if c := strings.Compare(a.GetLogId(), b.GetLogId()); c != 0 {
		return c
	}
	switch {
	case a.GetSequence() != b.GetSequence():
		return less(a.GetSequence() < b.GetSequence())
	case a.GetIndex() != b.GetIndex():
		return less(a.GetIndex() < b.GetIndex())
	}
	return 0
}

func less(yes bool) int {
	if yes {
		return -1
	}
	return 1
}

// errYounger says that the notifier stored something of a log that sorts after
// the one at hand: it takes all that is sent for a repeat, and has none of it.
var errYounger = errors.New("the notifier has stored an alert of a younger event log, and drops those of this one until it is raised above that")

// Queue is the outbox of one partition. It is safe for concurrent use by the
// partition's fold and its sender.
type Queue struct {
	log       string // the log that is folded
	mu        sync.Mutex
	waiting   []*alertv1.Transition // guarded by mu; committed, not acknowledged
	trim      int                   // guarded by mu; acknowledged, still stored
	watermark *alertv1.Cause        // guarded by mu; newest cause acknowledged
	foreign   *alertv1.Cause        // guarded by mu; a watermark that none of these has
	filled    chan struct{}         // has a token when there may be something to send
	drained   chan struct{}         // has a token when something was acknowledged
}

// NewQueue returns the queue of a partition of a log as it was stored: what was
// in its outbox, and the newest cause known to be acknowledged.
func NewQueue(logID string, stored []*alertv1.Transition, acknowledged *alertv1.Cause) *Queue {
	q := &Queue{
		log: logID, waiting: slices.Clone(stored),
		filled:  make(chan struct{}, 1),
		drained: make(chan struct{}, 1),
	}
	_ = q.Acknowledge(acknowledged) // what is of a younger log acknowledges nothing
	q.wake(q.filled)
	return q
}

// Above returns those of transitions that the notifier is not known to have.
func (q *Queue) Above(transitions []*alertv1.Transition) []*alertv1.Transition {
	q.mu.Lock()
	defer q.mu.Unlock()
	var above []*alertv1.Transition
	for _, t := range transitions {
		if Compare(t.GetCause(), q.watermark) > 0 {
			above = append(above, t)
		}
	}
	return above
}

// Push adds transitions that were committed.
func (q *Queue) Push(transitions []*alertv1.Transition) {
	if len(transitions) == 0 {
		return
	}
	q.mu.Lock()
	q.waiting = append(q.waiting, transitions...)
	q.mu.Unlock()
	q.wake(q.filled)
}

// Acknowledge takes note that the notifier has everything up to cause. A cause
// of a younger log says nothing of what waits here: that is kept, and the error
// says why.
func (q *Queue) Acknowledge(cause *alertv1.Cause) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cause.GetLogId() > q.log {
		q.doubt(cause)
		return fmt.Errorf("%w: %s, after %s", errYounger, cause.GetLogId(), q.log)
	}
	if Compare(cause, q.watermark) <= 0 {
		return nil
	}
	q.watermark = cause
	n := 0
	for n < len(q.waiting) && Compare(q.waiting[n].GetCause(), cause) <= 0 {
		n++
	}
	if n == 0 || Compare(q.waiting[n-1].GetCause(), cause) != 0 {
		q.doubt(cause)
	}
	q.remove(n)
	return nil
}

// doubt notes a cause that none of what waits has. The caller holds mu.
func (q *Queue) doubt(cause *alertv1.Cause) {
	q.foreign = cause
	q.wake(q.drained)
}

// Doubtful is true when Foreign has something to tell.
func (q *Queue) Doubtful() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.foreign != nil
}

// Foreign returns the newest cause acknowledged that was none of what waited,
// once: the notifier has it from somebody who knew more of the log, or of a log
// that is no more. It is nil when there is none.
func (q *Queue) Foreign() *alertv1.Cause {
	q.mu.Lock()
	defer q.mu.Unlock()
	cause := q.foreign
	q.foreign = nil
	return cause
}

// remove takes n transitions from the front. The caller holds mu.
func (q *Queue) remove(n int) {
	clear(q.waiting[:n])
	q.waiting = q.waiting[n:]
	q.trim += n
	if n > 0 {
		q.wake(q.drained)
	}
}

// replace puts another form of the first transition in its place. An owner that
// loads the stored outbox begins with the whole one again.
func (q *Queue) replace(form *alertv1.Transition) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting[0] = form
}

// drop removes the first transition without an acknowledgement.
func (q *Queue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.remove(1)
}

// Stored tells what the next commit has to write about acknowledgements: how
// many transitions leave the front of the stored outbox, and the newest cause.
func (q *Queue) Stored() (trim int, acknowledged *alertv1.Cause) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.trim, q.watermark
}

// Trimmed takes note that a commit removed n transitions from the stored outbox.
func (q *Queue) Trimmed(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.trim -= n
}

// Waiting returns what is committed and not acknowledged, in order.
func (q *Queue) Waiting() []*alertv1.Transition {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.waiting)
}

// Len is how many transitions wait.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// Full is true when the partition must not make more transitions.
func (q *Queue) Full() bool { return q.Len() >= Capacity }

// Drained has a token after something was acknowledged, or is doubtful.
func (q *Queue) Drained() <-chan struct{} { return q.drained }

// batch returns the first transitions, as many as one batch may hold and at
// most limit. They stay in the queue.
func (q *Queue) batch(limit int) []*alertv1.Transition {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < len(q.waiting) && n < min(limit, batchCount) {
		// Tag and length of the element take at most 6 bytes.
		size += proto.Size(q.waiting[n]) + 6
		if n > 0 && size > batchBytes {
			break
		}
		n++
	}
	return slices.Clone(q.waiting[:n])
}

func (q *Queue) wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
