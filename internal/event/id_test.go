package event_test

import (
	"regexp"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

func TestIDsAreFixedForTheLifeOfAStream(t *testing.T) {
	// A changed id would publish each fact of the last 40 minutes again after an
	// upgrade. Whoever changes one on purpose changes it here too.
	got := []string{
		event.JobFactID("default-endpoint-abc", "job-1", 2, eventv1.JobState_JOB_STATE_FAILED),
		event.RegistrationID("default-endpoint-abc", "job-1", 0),
		event.RemovalID(target("default", endpoint, "abc"), ""),
	}
	want := []string{
		"8651908384df125e8781ee380cf48a30", "5ef3fd5230c91c893affcee35397526f", "7fdb5d7cd08181d085dcefb2129ddda4",
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("id %d is %s, want %s", i, got[i], want[i])
		}
	}
}

func TestIDsTellFactsApartAndNothingElse(t *testing.T) {
	spec := func(workers int64) *eventv1.TargetSpec {
		return &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: &eventv1.EndpointSpec{WorkersMax: new(workers)}}}
	}
	named := func(name string) *eventv1.Target {
		return &eventv1.Target{Account: "a", Kind: endpoint, Id: "e", Name: name}
	}
	const failed, queued = eventv1.JobState_JOB_STATE_FAILED, eventv1.JobState_JOB_STATE_IN_QUEUE
	ids := map[string]string{
		"job":                                 event.JobFactID("a-endpoint-e", "j", 1, failed),
		"another state":                       event.JobFactID("a-endpoint-e", "j", 1, queued),
		"another attempt":                     event.JobFactID("a-endpoint-e", "j", 2, failed),
		"another job":                         event.JobFactID("a-endpoint-e", "j2", 1, failed),
		"another endpoint":                    event.JobFactID("a-endpoint-e2", "j", 1, failed),
		"parts that would run together":       event.JobFactID("a-endpoint-ej", "", 1, failed),
		"a registration":                      event.RegistrationID("a-endpoint-e", "j", 0),
		"one of a job that was seen to end":   event.RegistrationID("a-endpoint-e", "j", 1),
		"and of one that was tried again":     event.RegistrationID("a-endpoint-e", "j", 2),
		"a discovery":                         event.DiscoveryID(named("n"), spec(1), ""),
		"of other settings":                   event.DiscoveryID(named("n"), spec(2), ""),
		"of another name":                     event.DiscoveryID(named("m"), spec(1), ""),
		"of another target":                   event.DiscoveryID(target("a", pod, "e"), spec(1), ""),
		"after a removal":                     event.DiscoveryID(named("n"), spec(1), event.RemovalID(named("n"), "")),
		"a change":                            event.ChangeID(named("n"), spec(1), ""),
		"the same change after another":       event.ChangeID(named("n"), spec(1), event.ChangeID(named("n"), spec(2), "")),
		"a removal":                           event.RemovalID(named("n"), ""),
		"a second removal after a comeback":   event.RemovalID(named("n"), event.DiscoveryID(named("n"), spec(1), "")),
		"a discovery with settings left out":  event.DiscoveryID(named("n"), nil, ""),
		"a discovery with zero, not left out": event.DiscoveryID(named("n"), spec(0), ""),
	}
	short := regexp.MustCompile(`^[0-9a-f]{32}$`)
	seen := map[string]string{}
	for name, id := range ids {
		if other := seen[id]; other != "" {
			t.Errorf("%q and %q share the id %s", name, other, id)
		}
		seen[id] = name
		if !short.MatchString(id) {
			t.Errorf("%s: id %q is no short hexadecimal", name, id)
		}
	}
	if event.DiscoveryID(named("n"), spec(1), "") != ids["a discovery"] {
		t.Error("the same discovery has two ids")
	}
	if event.RemovalID(named("renamed"), "") != ids["a removal"] {
		t.Error("a name is part of a removal's id, though the target is the same")
	}
}
