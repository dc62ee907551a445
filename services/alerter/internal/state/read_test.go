package state_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/state"
)

func TestReadsAcrossPartitions(t *testing.T) {
	s := open(t, servertest.Redis(t), nil)
	tokens := []string{"acme-endpoint-one", "acme-endpoint-two", "acme-pod-three"}
	stored := map[int]map[string][]byte{}
	for _, token := range tokens {
		p := event.Partition(token)
		if stored[p] == nil {
			stored[p] = map[string][]byte{}
		}
		stored[p][token] = []byte("state of " + token)
	}
	for p, targets := range stored {
		_, err := s.Install(t.Context(), p, &state.Saved{}, state.Content{
			Position: position(uint64(p)), Targets: targets, Active: map[string][]byte{"alert": []byte("active")},
		})
		if err != nil {
			t.Fatal(err)
		}
	}

	got, err := s.Tokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tokens, got); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
	targets, err := s.Targets(t.Context(), []string{"acme-pod-three", "acme-pod-four"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]byte{"acme-pod-three": []byte("state of acme-pod-three")}, targets); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}

	heads, err := s.Heads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	partitions := make([]int, event.Partitions)
	for p, head := range heads {
		partitions[p] = p
		if present := head != nil; present != (stored[p] != nil) {
			t.Errorf("head of partition %d present: %v", p, present)
		}
	}
	alerts, err := s.Alerts(t.Context(), partitions)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts {
		if want := stored[a.Partition] != nil; (len(a.Active) == 1) != want || (a.Head != nil) != want {
			t.Errorf("partition %d: %d alerts, head %v", a.Partition, len(a.Active), a.Head)
		}
	}
}

func TestAStoreThatIsAwaySaysSo(t *testing.T) {
	r := servertest.Redis(t)
	s := open(t, r, nil)
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
	r.Stop(t)
	for name, call := range map[string]func() error{
		"Ping":   func() error { return s.Ping(t.Context()) },
		"Read":   func() error { _, err := s.Read(t.Context(), 1); return err },
		"Heads":  func() error { _, err := s.Heads(t.Context()); return err },
		"Tokens": func() error { _, err := s.Tokens(t.Context()); return err },
		"Alerts": func() error { _, err := s.Alerts(t.Context(), []int{1}); return err },
		"Targets": func() error {
			_, err := s.Targets(t.Context(), []string{"acme-pod-three"})
			return err
		},
	} {
		if call() == nil {
			t.Errorf("%s has no error", name)
		}
	}
}
