package rule

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const minute = int64(time.Minute / time.Millisecond)

// moment is one step of a story: what is known at an instant, and what must come of it.
type moment struct {
	at          int64
	cond, until Truth
	want        Change
}

func TestTheLifeOfAnAlert(t *testing.T) {
	for _, c := range []struct {
		name   string
		timing Timing
		story  []moment
	}{
		{"without for it fires at once and ends with its condition", Timing{}, []moment{
			{0, No, Unknown, None}, {1, Yes, Unknown, Fires}, {2, Yes, Unknown, None}, {3, No, Unknown, Resolved}, {4, No, Unknown, None},
		}},
		{"for must be over before it fires", Timing{For: 5 * minute}, []moment{
			{0, Yes, Unknown, Began}, {4 * minute, Yes, Unknown, None}, {5 * minute, Yes, Unknown, Fires},
		}},
		{"a pending alert vanishes and begins anew", Timing{For: 5 * minute}, []moment{
			{0, Yes, Unknown, Began},
			{4 * minute, No, Unknown, Vanished},
			{5 * minute, Yes, Unknown, Began},
			{9 * minute, Yes, Unknown, None},
			{10 * minute, Yes, Unknown, Fires},
		}},
		{"missing facts keep nothing, pending and firing as they are", Timing{For: minute}, []moment{
			{0, Unknown, Unknown, None},
			{1, Yes, Unknown, Began},
			{5 * minute, Unknown, Unknown, None},
			{6 * minute, Yes, Unknown, Fires},
			{7 * minute, Unknown, Unknown, None},
			{8 * minute, No, Unknown, Resolved},
		}},
		{"it is kept firing for a while after its end", Timing{Keep: 10 * minute}, []moment{
			{0, Yes, Unknown, Fires}, {minute, No, Unknown, None}, {10 * minute, No, Unknown, None}, {11 * minute, No, Unknown, Resolved},
		}},
		{"its return in that while starts the while anew", Timing{Keep: 10 * minute}, []moment{
			{0, Yes, Unknown, Fires},
			{minute, No, Unknown, None},
			{5 * minute, Yes, Unknown, None},
			{6 * minute, No, Unknown, None},
			{15 * minute, No, Unknown, None},
			{16 * minute, No, Unknown, Resolved},
		}},
		{"missing facts at the end of that while keep it firing", Timing{Keep: 10 * minute}, []moment{
			{0, Yes, Unknown, Fires}, {minute, No, Unknown, None}, {11 * minute, Unknown, Unknown, None}, {12 * minute, No, Unknown, Resolved},
		}},
		{"with until it ends by that alone", Timing{HasUntil: true}, []moment{
			{0, Yes, No, Fires}, {1, No, No, None}, {2, Unknown, No, None}, {3, No, Unknown, None}, {4, Unknown, Yes, Resolved},
		}},
		{"a condition that holds wins over until", Timing{HasUntil: true}, []moment{
			{0, Yes, Yes, Fires}, {1, Yes, Yes, None}, {2, No, Yes, Resolved},
		}},
		{"until does not end a pending alert", Timing{HasUntil: true, For: minute}, []moment{
			{0, Yes, Yes, Began}, {minute / 2, No, Yes, Vanished}, {minute, Yes, Yes, Began}, {2 * minute, Yes, Yes, Fires},
		}},
		{"until and keep together", Timing{HasUntil: true, Keep: 5 * minute}, []moment{
			{0, Yes, No, Fires}, {1, No, Yes, None}, {2, No, No, None}, {minute, No, Yes, None}, {6 * minute, No, Yes, Resolved},
		}},
		{"time in which nothing is known is no wait", Timing{For: 5 * minute}, []moment{
			{0, Yes, Unknown, Began},
			{3 * minute, Unknown, Unknown, None},
			{60 * minute, Unknown, Unknown, None},
			{63 * minute, Yes, Unknown, None},
			{65*minute - 1, Yes, Unknown, None},
			{65 * minute, Yes, Unknown, Fires},
		}},
		{"nor does it end one", Timing{For: 5 * minute}, []moment{
			{0, Yes, Unknown, Began},
			{3 * minute, Unknown, Unknown, None},
			{60 * minute, No, Unknown, Vanished},
			{61 * minute, Yes, Unknown, Began},
			{65 * minute, Yes, Unknown, None},
			{66 * minute, Yes, Unknown, Fires},
		}},
		{"a wait that passed before is over", Timing{For: 5 * minute}, []moment{
			{0, Yes, Unknown, Began}, {5 * minute, Unknown, Unknown, None}, {60 * minute, Yes, Unknown, Fires},
		}},
		{"nor is it a part of the while after the end", Timing{Keep: 10 * minute}, []moment{
			{0, Yes, Unknown, Fires},
			{minute, No, Unknown, None},
			{7 * minute, Unknown, Unknown, None},
			{60 * minute, No, Unknown, None},
			{64*minute - 1, No, Unknown, None},
			{64 * minute, No, Unknown, Resolved},
		}},
		{"nor after an end by until", Timing{HasUntil: true, Keep: 10 * minute}, []moment{
			{0, Yes, No, Fires},
			{minute, No, Yes, None},
			{7 * minute, No, Unknown, None},
			{60 * minute, Unknown, Yes, None},
			{64 * minute, Unknown, Yes, Resolved},
		}},
		{"its return after it starts the while anew", Timing{Keep: 10 * minute}, []moment{
			{0, Yes, Unknown, Fires},
			{minute, No, Unknown, None},
			{7 * minute, Unknown, Unknown, None},
			{60 * minute, Yes, Unknown, None},
			{61 * minute, No, Unknown, None},
			{71*minute - 1, No, Unknown, None},
			{71 * minute, No, Unknown, Resolved},
		}},
		{"a firing alert is renewed daily", Timing{}, []moment{
			{0, Yes, Unknown, Fires},
			{24*60*minute - 1, Yes, Unknown, None},
			{24 * 60 * minute, Yes, Unknown, Renewed},
			{25 * 60 * minute, Yes, Unknown, None},
			{73 * 60 * minute, Unknown, Unknown, Renewed},
			{74 * 60 * minute, Yes, Unknown, None},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s State
			for _, m := range c.story {
				var got Change
				if s, got = s.Step(m.at, Verdict{Cond: m.cond, Until: m.until, Since: m.at}, c.timing); got != m.want {
					t.Fatalf("at %d: change %d, want %d (state %+v)", m.at, got, m.want, s)
				}
			}
		})
	}
}

func TestAWaitStopsWhenTheFactsCeasedToHold(t *testing.T) {
	timing := Timing{For: 5 * minute}
	s, _ := State{}.Step(0, Verdict{Cond: Yes}, timing)
	s, _ = s.Step(20*minute, Verdict{Cond: Unknown, Since: minute}, timing)
	if s, change := s.Step(24*minute-1, Verdict{Cond: Yes}, timing); change != None || s.Frozen {
		t.Errorf("change %d, state %+v; want it to go on", change, s)
	}
	s, _ = s.Step(21*minute, Verdict{Cond: Yes}, timing)
	if _, change := s.Step(25*minute, Verdict{Cond: Yes}, timing); change != Fires {
		t.Errorf("change %d; of 5 minutes one had passed before, and then 4", change)
	}
	firing := State{Phase: Firing}
	if got := firing.Freeze(minute); got != firing {
		t.Errorf("an alert that does not wait becomes %+v", got)
	}
}

func TestDueIsTheNextInstantThatTimeAloneMayChange(t *testing.T) {
	timing := Timing{For: 5 * minute, Keep: 2 * minute}
	day := RenewEvery.Milliseconds()
	for _, c := range []struct {
		name  string
		state State
		now   int64
		want  int64
		ok    bool
	}{
		{"nothing while inactive", State{}, 0, 0, false},
		{"the end of for", State{Phase: Pending, Active: 10}, 10, 10 + 5*minute, true},
		{"nothing once for is over and facts are missing", State{Phase: Pending, Active: 10}, 10 + 5*minute, 0, false},
		{"nothing while for stands still", State{Phase: Pending, Active: 10, Frozen: true, Held: 5}, 10, 0, false},
		{"the renewal while keep stands still", State{Phase: Firing, Renew: day, Clearing: true, Cleared: 7, Frozen: true}, 8, day, true},
		{"the renewal", State{Phase: Firing, Renew: day}, 10, day, true},
		{"the end of keep before the renewal", State{Phase: Firing, Renew: day, Clearing: true, Cleared: 7}, 8, 7 + 2*minute, true},
		{"the renewal after keep is over", State{Phase: Firing, Renew: day, Clearing: true, Cleared: 7}, 7 + 2*minute, day, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := c.state.Due(c.now, timing)
			if diff := cmp.Diff([]any{c.want, c.ok}, []any{got, ok}); diff != "" {
				t.Error(diff)
			}
		})
	}
}
