package outbox

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

func cause(log string, seq uint64, n uint32) *alertv1.Cause {
	return &alertv1.Cause{LogId: log, Sequence: seq, Index: n}
}

func transition(seq uint64, n uint32) *alertv1.Transition {
	return &alertv1.Transition{Id: fmt.Sprintf("%d.%d", seq, n), Cause: cause("a", seq, n)}
}

func transitionOf(log string, seq uint64) *alertv1.Transition {
	t := transition(seq, 0)
	t.Cause.LogId = log
	return t
}

func ids(transitions []*alertv1.Transition) []string {
	got := []string{}
	for _, t := range transitions {
		got = append(got, t.GetId())
	}
	return got
}

func TestCompare(t *testing.T) {
	for name, c := range map[string]struct {
		a, b *alertv1.Cause
		want int
	}{
		"equal causes":                       {cause("a", 1, 2), cause("a", 1, 2), 0},
		"no cause is below any":              {nil, cause("", 0, 0), -1},
		"any is above no cause":              {cause("", 0, 0), nil, 1},
		"no causes are equal":                {nil, nil, 0},
		"an older log is below a newer one":  {cause("a", 9, 9), cause("b", 1, 0), -1},
		"a later message is above":           {cause("a", 10, 0), cause("a", 9, 5), 1},
		"the order within a message decides": {cause("a", 9, 4), cause("a", 9, 5), -1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Compare(c.a, c.b); got != c.want {
				t.Errorf("Compare = %d, want %d", got, c.want)
			}
		})
	}
}

func TestQueue(t *testing.T) {
	q := NewQueue("a", []*alertv1.Transition{transition(1, 0), transition(1, 1), transition(2, 0)}, cause("a", 1, 0))
	if diff := cmp.Diff([]string{"1.1", "2.0"}, ids(q.Waiting())); diff != "" {
		t.Errorf("what waits after the load (-want +got):\n%s", diff)
	}
	q.Push([]*alertv1.Transition{transition(3, 0)})
	q.Acknowledge(cause("a", 2, 0))
	q.Acknowledge(cause("a", 1, 1)) // late, changes nothing
	trim, acknowledged := q.Stored()
	if trim != 3 || Compare(acknowledged, cause("a", 2, 0)) != 0 {
		t.Errorf("Stored = %d, %v; want 3 transitions up to 2.0", trim, acknowledged)
	}
	q.Trimmed(3)
	if trim, _ := q.Stored(); trim != 0 {
		t.Errorf("Stored = %d after the trim, want 0", trim)
	}
	replayed := []*alertv1.Transition{transition(1, 1), transition(2, 0), transition(2, 1)}
	if diff := cmp.Diff([]string{"2.1"}, ids(q.Above(replayed))); diff != "" {
		t.Errorf("what is above the watermark (-want +got):\n%s", diff)
	}
}

func TestAWatermarkOfSomebodyElseIsToldOnce(t *testing.T) {
	q := NewQueue("a", []*alertv1.Transition{transition(1, 0), transition(2, 0), transition(4, 0)}, nil)
	for _, c := range []struct {
		what  string
		cause *alertv1.Cause
		want  *alertv1.Cause
	}{
		{"of what waits first", cause("a", 1, 0), nil},
		{"that is old", cause("a", 0, 7), nil},
		{"of what waits next", cause("a", 2, 0), nil},
		{"between two that wait", cause("a", 3, 0), cause("a", 3, 0)},
		{"that is known", cause("a", 3, 0), nil},
		{"of the last that waits", cause("a", 4, 0), nil},
		{"beyond all that wait", cause("a", 5, 0), cause("a", 5, 0)},
		{"of another log", cause("b", 1, 0), cause("b", 1, 0)},
	} {
		q.Acknowledge(c.cause)
		if got := q.Foreign(); Compare(got, c.want) != 0 {
			t.Errorf("after a watermark %s: %v, want %v", c.what, got, c.want)
		}
	}
}

func TestAWatermarkOfAYoungerLogAcknowledgesNothing(t *testing.T) {
	q := NewQueue("b", []*alertv1.Transition{transitionOf("b", 1), transitionOf("b", 2)}, cause("c", 9, 0))
	younger := cause("c", 9, 0)
	for range 2 {
		if got := q.Foreign(); Compare(got, younger) != 0 {
			t.Errorf("it is told as %v, want %v", got, younger)
		}
		if err := q.Acknowledge(younger); err == nil {
			t.Error("it is taken as an acknowledgement")
		}
	}
	if diff := cmp.Diff([]string{"1.0", "2.0"}, ids(q.Waiting())); diff != "" {
		t.Errorf("what waits (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"3.0"}, ids(q.Above([]*alertv1.Transition{transitionOf("b", 3)}))); diff != "" {
		t.Errorf("what may wait too (-want +got):\n%s", diff)
	}
	// Once it is gone from the notifier, the log's own are what they were.
	if err := q.Acknowledge(cause("b", 1, 0)); err != nil {
		t.Fatal(err)
	}
	if trim, acknowledged := q.Stored(); trim != 1 || Compare(acknowledged, cause("b", 1, 0)) != 0 {
		t.Errorf("Stored = %d, %v; want 1 transition", trim, acknowledged)
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := NewQueue("a", nil, nil)
	for seq := range uint64(Capacity - 1) {
		q.Push([]*alertv1.Transition{transition(seq+1, 0)})
	}
	if q.Full() {
		t.Error("full one below the capacity")
	}
	q.Push([]*alertv1.Transition{transition(Capacity, 0)})
	if !q.Full() {
		t.Error("not full at the capacity")
	}
	q.Acknowledge(cause("a", 1, 0))
	if q.Full() {
		t.Error("still full after an acknowledgement")
	}
	select {
	case <-q.Drained():
	default:
		t.Error("an acknowledgement does not wake the fold")
	}
}
