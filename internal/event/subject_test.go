package event_test

import (
	"fmt"
	"hash/fnv"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

const (
	endpoint = eventv1.TargetKind_TARGET_KIND_ENDPOINT
	pod      = eventv1.TargetKind_TARGET_KIND_POD
	account  = eventv1.TargetKind_TARGET_KIND_ACCOUNT
)

func target(accountName string, kind eventv1.TargetKind, id string) *eventv1.Target {
	return &eventv1.Target{Account: accountName, Kind: kind, Id: id}
}

func TestToken(t *testing.T) {
	for name, test := range map[string]struct {
		target *eventv1.Target
		want   string
	}{
		"an id of letters and digits stays as it is": {target("default", endpoint, "a1B2c3"), "default-endpoint-a1B2c3"},
		"a pod":                           {target("default", pod, "xyz"), "default-pod-xyz"},
		"an account":                      {target("prod", account, "prod"), "prod-account-prod"},
		"an underscore is doubled":        {target("my_team", pod, "a_b"), "my__team-pod-a__b"},
		"a dash is escaped":               {target("my-team", pod, "a-b"), "my_2dteam-pod-a_2db"},
		"what has a meaning in a subject": {target("a.b", pod, "* >"), "a_2eb-pod-_2a_20_3e"},
		"other alphabets go by byte":      {target("ü", pod, "x"), "_c3_bc-pod-x"},
		"the name is not in it":           {&eventv1.Target{Account: "a", Kind: pod, Id: "b", Name: "prod-llm"}, "a-pod-b"},
		"no target is all":                {nil, "all"},
	} {
		if got := event.Token(test.target); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestParseTokenRefusesWhatTokenNeverWrites(t *testing.T) {
	for _, token := range []string{
		"", "all", "a", "a-pod", "a-pod-b-c", "a-worker-b", "a--b", "a-pod-_", "a-pod-_2", "a-pod-_2D", "a-pod-_zz",
		"a-pod-_61", "a-pod-_5f", "a-pod-ü", "a b-pod-c",
	} {
		if got, err := event.ParseToken(token); err == nil {
			t.Errorf("%q was read as %v", token, got)
		}
	}
}

var tokenAlphabet = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func FuzzTokensNameOneTargetEach(f *testing.F) {
	f.Add("default", "abc", "default", "a-c")
	f.Add("a-pod", "b", "a", "pod-b")
	f.Add("a_2d", "b", "a-", "b")
	f.Add("_", "__", "__", "_")
	f.Add("ü", "\xff", "", "\x00")
	f.Fuzz(func(t *testing.T, account1, id1, account2, id2 string) {
		one, two := target(account1, pod, id1), target(account2, pod, id2)
		same := account1 == account2 && id1 == id2
		if (event.Token(one) == event.Token(two)) != same {
			t.Errorf("%v and %v have the tokens %q and %q", one, two, event.Token(one), event.Token(two))
		}
		if event.Token(one) == event.Token(target(account1, endpoint, id1)) {
			t.Errorf("a pod and an endpoint share the token %q", event.Token(one))
		}
		if !tokenAlphabet.MatchString(event.Token(one)) {
			t.Errorf("token %q leaves the alphabet of subjects", event.Token(one))
		}
		back, err := event.ParseToken(event.Token(one))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(one, back, protocmp.Transform()); diff != "" {
			t.Errorf("token %q read back (-want +got):\n%s", event.Token(one), diff)
		}
	})
}

func FuzzParseTokenAgreesWithToken(f *testing.F) {
	f.Add("default-endpoint-abc")
	f.Add("a_2db-pod-__")
	f.Add("a_41-pod-b")
	f.Fuzz(func(t *testing.T, token string) {
		if parsed, err := event.ParseToken(token); err == nil && event.Token(parsed) != token {
			t.Errorf("%q was read as %v, whose token is %q", token, parsed, event.Token(parsed))
		}
	})
}

func TestPartitionIsWhatNATSComputes(t *testing.T) {
	transform, err := server.NewSubjectTransform("tocsin.event.*.*", "tocsin.event.{{partition(64,2)}}.{{wildcard(1)}}.{{wildcard(2)}}")
	if err != nil {
		t.Fatal(err)
	}
	used := map[int]bool{}
	for i := range 2000 {
		tgt := target(fmt.Sprintf("team-%d", i%7), endpoint, fmt.Sprintf("ep_%x", i*2654435761))
		stored, err := transform.Match(event.Subject(event.KindHealthSampled, tgt))
		if err != nil {
			t.Fatal(err)
		}
		if want := event.StoredSubject(event.KindHealthSampled, event.Token(tgt)); stored != want {
			t.Fatalf("NATS stores %q, we expect %q", stored, want)
		}
		used[event.Partition(event.Token(tgt))] = true
	}
	if len(used) != event.Partitions {
		t.Errorf("2000 targets fell into %d of %d partitions", len(used), event.Partitions)
	}
}

func FuzzPartitionIsFNV1a(f *testing.F) {
	f.Add("tenant42")
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		h := fnv.New32a()
		_, _ = h.Write([]byte(token))
		if got, want := event.Partition(token), int(h.Sum32()%64); got != want {
			t.Errorf("Partition(%q) = %d, want %d", token, got, want)
		}
	})
}

func TestPartitionOfTheKnownVector(t *testing.T) {
	// Published with the partition function of NATS: tenant42 of 8 is 3. Eight
	// divides 64, so the remainder shows through.
	if got := event.Partition("tenant42") % 8; got != 3 {
		t.Errorf("tenant42 is in partition %d of 8, want 3", got)
	}
}

func TestParseSubject(t *testing.T) {
	for name, test := range map[string]struct {
		subject string
		want    event.Address
		ok      bool
	}{
		"a stored fact":                   {event.StoredSubject("tick", "a-pod-b"), event.Address{Partition: event.Partition("a-pod-b"), Kind: "tick", Token: "a-pod-b"}, true},
		"a fact about a whole partition":  {event.PartitionSubject(63, "tick"), event.Address{Partition: 63, Kind: "tick", Token: "all"}, true},
		"partition 0":                     {"tocsin.event.0.tick.all", event.Address{Kind: "tick", Token: "all"}, true},
		"what producers publish":          {subject: event.Subject("tick", target("a", pod, "b"))},
		"a partition that does not exist": {subject: "tocsin.event.64.tick.all"},
		"a partition with three digits":   {subject: "tocsin.event.001.tick.all"},
		"a leading zero":                  {subject: "tocsin.event.01.tick.all"},
		"a sign":                          {subject: "tocsin.event.+1.tick.all"},
		"no partition":                    {subject: "tocsin.event..tick.all"},
		"no kind":                         {subject: "tocsin.event.1..all"},
		"no token":                        {subject: "tocsin.event.1.tick."},
		"one part too many":               {subject: "tocsin.event.1.tick.all.more"},
		"another root":                    {subject: "tocsin.alert.1.tick.all"},
		"the root alone":                  {subject: "tocsin.event"},
		"nothing":                         {},
	} {
		got, ok := event.ParseSubject(test.subject)
		if ok != test.ok || ok && got != test.want {
			t.Errorf("%s: ParseSubject(%q) = %+v, %v", name, test.subject, got, ok)
		}
	}
}

func TestParseSubjectDoesNotAllocate(t *testing.T) {
	subject := event.StoredSubject(event.KindHealthSampled, "default-endpoint-abc")
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := event.ParseSubject(subject); !ok {
			t.Fatal("not read")
		}
	}); n != 0 {
		t.Errorf("%v allocations for a message", n)
	}
}

func TestFiltersMatchWhatTheyName(t *testing.T) {
	stored := event.StoredSubject(event.KindTick, "a-pod-b")
	for _, test := range []struct {
		filter string
		match  bool
	}{
		{event.PartitionFilter(event.Partition("a-pod-b")), true},
		{event.PartitionFilter((event.Partition("a-pod-b") + 1) % event.Partitions), false},
		{event.KindFilter(event.KindTick), true},
		{event.KindFilter(event.KindJobRegistered), false},
	} {
		if got := matches(test.filter, stored); got != test.match {
			t.Errorf("%q matches %q: %v", test.filter, stored, got)
		}
	}
}

// matches applies NATS's rule for single-token wildcards.
func matches(filter, subject string) bool {
	f, s := strings.Split(filter, "."), strings.Split(subject, ".")
	if len(f) != len(s) {
		return false
	}
	for i := range f {
		if f[i] != "*" && f[i] != s[i] {
			return false
		}
	}
	return true
}
