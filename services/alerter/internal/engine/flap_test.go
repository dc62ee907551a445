package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
)

// flapping is a rule set with one rule that flaps from the fifth change within 10
// minutes on.
func flapping(rest string) string {
	return "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 5, flapping: {window: 10m, transitions: 5}, annotations: {summary: '{{ $value }} wait'}" + rest + "}]}]"
}

// flapper is an endpoint whose queue comes and goes.
type flapper struct {
	*story
	all []*alertv1.Transition
}

func newFlapper(t *testing.T, programs ...*Program) *flapper {
	return &flapper{story: newStory(t, programs...)}
}

// polls polls a queue every 15 s for a time, and returns what is told of it.
func (f *flapper) polls(n int64, d time.Duration) (lines []string) {
	for end := f.at.Add(d); f.at.Before(end); {
		r := f.queue(15*time.Second, "x", n)
		f.all = append(f.all, r.Transitions...)
		for i, line := range told(r) {
			if r.Transitions[i].GetAlert().GetFlapping() {
				line += ", flapping"
			}
			lines = append(lines, line)
		}
	}
	return lines
}

func (f *flapper) expect(got []string, want ...string) {
	f.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		f.t.Errorf("at %s: %s", f.at.Sub(epoch), diff)
	}
}

// upset makes the alert fire, resolve, fire, resolve and fire, which is too often.
func (f *flapper) upset() {
	f.t.Helper()
	for range 2 {
		f.expect(f.polls(9, time.Minute), "firing A")
		f.expect(f.polls(0, time.Minute), "resolved A")
	}
	f.expect(f.polls(9, time.Minute), "firing A, flapping")
}

func TestAnAlertThatFlapsIsToldOnce(t *testing.T) {
	f := newFlapper(t, compile(t, flapping("")))
	f.upset()
	notice := f.all[len(f.all)-1].GetAlert()
	want := map[string]string{
		"summary": "flapping: 9 wait", "target_name": "x",
		"flapping": "fired and resolved 5 times within 10m; nothing more is told until it was calm for as long",
	}
	if diff := cmp.Diff(want, notice.GetAnnotations()); diff != "" {
		t.Error(diff)
	}
	for range 20 {
		f.expect(f.polls(0, time.Minute))
		f.shows("A firing")
		again := f.at.Add(15 * time.Second)
		f.expect(f.polls(9, 3*time.Minute))
		if x, ok := (&Inspection{f.p}).Alert(notice.GetId()); !ok || !x.LastFired.Equal(again) {
			t.Errorf("it last fired at %v, want %v", x.LastFired, again)
		}
	}
	f.expect(f.polls(0, 9*time.Minute))
	f.expect(f.polls(0, 2*time.Minute), "resolved A: no longer flapping, flapping")
	if end := f.all[len(f.all)-1].GetAlert(); end.GetId() != notice.GetId() {
		t.Errorf("the alert %s is over, want %s", end.GetId(), notice.GetId())
	}
	f.shows()
	// It begins as any other.
	f.upset()
}

func TestWhatFiresWhenItIsCalmIsTold(t *testing.T) {
	f := newFlapper(t, compile(t, flapping("")))
	f.upset()
	f.expect(f.polls(0, time.Minute))
	again := f.at.Add(15 * time.Second)
	f.expect(f.polls(9, 10*time.Minute))
	f.expect(f.polls(9, time.Minute), "resolved A: no longer flapping, flapping", "firing A")
	over, fresh := f.all[len(f.all)-2].GetAlert(), f.all[len(f.all)-1].GetAlert()
	if over.GetId() == fresh.GetId() || over.GetFingerprint() != fresh.GetFingerprint() {
		t.Errorf("the ids are %s and %s, want two of the fingerprint %s", over.GetId(), fresh.GetId(), over.GetFingerprint())
	}
	if !fresh.GetFiredAt().AsTime().Equal(again) || !fresh.GetActiveAt().AsTime().Equal(again) {
		t.Errorf("it fires since %v, want %v", fresh.GetFiredAt().AsTime(), again)
	}
	if got := fresh.GetAnnotations(); got["summary"] != "9 wait" || got["flapping"] != "" {
		t.Errorf("the texts are %v", got)
	}
	f.expect(f.polls(0, time.Minute), "resolved A")
	if last := f.all[len(f.all)-1].GetAlert(); last.GetId() != fresh.GetId() {
		t.Errorf("the alert %s is over, want %s", last.GetId(), fresh.GetId())
	}
}

func TestWhatWaitsWhenItIsCalmWaitsOn(t *testing.T) {
	f := newFlapper(t, compile(t, flapping(", for: 90s")))
	for range 2 {
		f.expect(f.polls(9, 2*time.Minute), "firing A")
		f.expect(f.polls(0, 15*time.Second), "resolved A")
	}
	f.expect(f.polls(9, 2*time.Minute), "firing A, flapping")
	f.expect(f.polls(0, 9*time.Minute+30*time.Second))
	f.expect(f.polls(9, 30*time.Second))
	f.expect(f.polls(9, 30*time.Second), "resolved A: no longer flapping, flapping")
	f.shows("A pending")
	f.expect(f.polls(9, 45*time.Second), "firing A")
}

// TestCalmMustBeKnown: nobody knows whether it goes on while nothing is heard.
func TestCalmMustBeKnown(t *testing.T) {
	f := newFlapper(t, compile(t, flapping("")))
	f.upset()
	f.expect(f.polls(0, 5*time.Minute))
	for range 100 {
		f.want(f.send(15*time.Second, tick()))
	}
	f.want(f.send(8*time.Hour, tick()))
	f.expect(f.polls(0, 4*time.Minute))
	f.p = viaSnapshot(t, f.p, 1)
	f.expect(f.polls(0, 90*time.Second), "resolved A: no longer flapping, flapping")
}

func TestANoticeIsOverWithItsRule(t *testing.T) {
	with := compile(t, flapping(""))
	for name, c := range map[string]struct {
		next string
		n    int64
		want []string
	}{
		"removed":       {"groups: [{name: g, rules: []}]", 9, []string{"resolved A: rule removed"}},
		"without bound": {strings.Replace(flapping(""), "flapping: {window: 10m, transitions: 5}, ", "", 1), 9, []string{"resolved A: no longer flapping", "firing A"}},
		"and not firing": {
			strings.Replace(flapping(""), "flapping: {window: 10m, transitions: 5}, ", "", 1), 0, []string{"resolved A: no longer flapping"},
		},
		"observed": {flapping(", mode: observe"), 0, []string{"resolved A: only observed now"}},
	} {
		t.Run(name, func(t *testing.T) {
			next := compile(t, c.next)
			f := newFlapper(t, with, next)
			f.upset()
			f.expect(f.polls(c.n, time.Minute))
			f.want(f.send(0, activated(next.Hash())), c.want...)
		})
	}
}

func TestANoticeIsRenewed(t *testing.T) {
	f := newFlapper(t, compile(t, flapping("")))
	f.upset()
	renewed := 0
	for range 26 * 60 / 8 {
		for _, line := range append(f.polls(0, 4*time.Minute), f.polls(9, 4*time.Minute)...) {
			if renewed++; line != "renewed A, flapping" {
				t.Errorf("told %s", line)
			}
		}
	}
	if renewed != 1 {
		t.Errorf("renewed %d times in 26 hours, want once", renewed)
	}
}

// TestARebuildComparesNotices: what is told fires, whatever its condition is.
func TestARebuildComparesNotices(t *testing.T) {
	f := newFlapper(t, compile(t, flapping("")))
	f.upset()
	f.expect(f.polls(0, time.Minute))
	for a := range f.p.Alerts() {
		if again := f.p.Reconcile([]*alertv1.Alert{a}, f.at); len(again) > 0 {
			t.Errorf("told %v of what is known", again)
		}
	}
	again := f.p.Reconcile(nil, f.at)
	if len(again) != 1 || again[0].GetKind() != alertv1.TransitionKind_TRANSITION_KIND_FIRING || !again[0].GetAlert().GetFlapping() {
		t.Errorf("a notifier that knows nothing is told %v", again)
	}
}

// TestWhatIsKeptOfFlappingIsBounded: as many changes as decide.
func TestWhatIsKeptOfFlappingIsBounded(t *testing.T) {
	f := newFlapper(t, compile(t, flapping("")))
	f.upset()
	for range 30 {
		f.polls(0, 15*time.Second)
		f.polls(9, 15*time.Second)
	}
	kept := func() int {
		var s statev1.TargetState
		if err := proto.Unmarshal(f.p.encodeKey("a-endpoint-x"), &s); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, r := range s.GetRestless() {
			n += len(r.GetChangesMs())
		}
		return n
	}
	if n := kept(); n != 5 {
		t.Errorf("%d changes are kept, want 5", n)
	}
	f.polls(0, 11*time.Minute)
	if n := kept(); n != 0 {
		t.Errorf("%d changes are kept after they do not count, want none: %s", n, fmt.Sprint(f.p.targets["a-endpoint-x"].restless))
	}
}
