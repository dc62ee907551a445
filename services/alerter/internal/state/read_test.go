package state_test

import (
	"bytes"
	"log/slog"
	"math/bits"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

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

// TestAStateThatLostAKeyIsAbsent removes what an eviction may remove.
func TestAStateThatLostAKeyIsAbsent(t *testing.T) {
	for name, c := range map[string]struct {
		command []any
		lost    bool
	}{
		"nothing":               {[]any{"PING"}, false},
		"the targets":           {[]any{"DEL", "{tocsin:07}:targets"}, true},
		"one of the targets":    {[]any{"HDEL", "{tocsin:07}:targets", "c"}, true},
		"the active alerts":     {[]any{"DEL", "{tocsin:07}:active"}, true},
		"the outbox":            {[]any{"DEL", "{tocsin:07}:outbox"}, true},
		"the end of the outbox": {[]any{"RPOP", "{tocsin:07}:outbox"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := servertest.Redis(t)
			s := open(t, r, nil)
			if err := install(t, s).Commit(t.Context(), second()); err != nil {
				t.Fatal(err)
			}
			owner, err := s.Take(t.Context(), partition, read(t, s))
			if err != nil {
				t.Fatal(err)
			}
			err = owner.Commit(t.Context(), state.Change{
				Position: position(3), Targets: map[string][]byte{"c": []byte("3"), "nobody": nil}, Trim: 1,
			})
			if err != nil {
				t.Fatal(err)
			}
			direct := redis.NewClient(&redis.Options{Addr: r.Addr()})
			defer direct.Close()
			if err := direct.Do(t.Context(), c.command...).Err(); err != nil {
				t.Fatal(err)
			}
			saved := read(t, s)
			if lost := saved.Stored == nil; lost != c.lost {
				t.Errorf("the state is absent: %v, want %v; read %v", lost, c.lost, saved)
			}
			if saved.Head == nil {
				t.Error("the head is not told, so that nothing can be installed over it")
			}
		})
	}
}

// TestAFullRedisIsWaitedForAndSaidRarely commits into a Redis without memory, until
// it was tried eight times and there is some.
func TestAFullRedisIsWaitedForAndSaidRarely(t *testing.T) {
	r := servertest.Redis(t)
	direct := redis.NewClient(&redis.Options{Addr: r.Addr()})
	defer direct.Close()
	var log bytes.Buffer
	metrics := prometheus.NewRegistry()
	s := state.Open(state.Options{Address: r.Addr(), Log: slog.New(slog.NewTextHandler(&log, nil)), Registerer: metrics})
	defer s.Close()
	owner := install(t, s)
	if err := direct.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- owner.Commit(t.Context(), second()) }()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for refused(t, metrics) < 8 {
		select {
		case err := <-done:
			t.Fatalf("it is committed: %v", err)
		case <-look.C:
		}
	}
	if err := direct.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantSecond(t, read(t, s))
	attempts := int(refused(t, metrics))
	if got, most := strings.Count(log.String(), "outcome unknown"), bits.Len(uint(attempts)); got < 1 || got > most {
		t.Errorf("%d lines of %d attempts, want 1 to %d:\n%s", got, attempts, most, log.String())
	}
}

// refused counts the attempts at commits that ended in an error.
func refused(t *testing.T, metrics *prometheus.Registry) float64 {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "tocsin_alerter_commit_failures_total" && m.GetLabel()[0].GetValue() == "unknown" {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestEvictionIsWarnedOf(t *testing.T) {
	for policy, want := range map[string]bool{"noeviction": false, "allkeys-lru": true} {
		t.Run(policy, func(t *testing.T) {
			r := servertest.Redis(t)
			direct := redis.NewClient(&redis.Options{Addr: r.Addr()})
			defer direct.Close()
			if err := direct.ConfigSet(t.Context(), "maxmemory-policy", policy).Err(); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			s := state.Open(state.Options{Address: r.Addr(), Log: slog.New(slog.NewTextHandler(&log, nil))})
			defer s.Close()
			s.WarnOfEviction(t.Context())
			if got := strings.Contains(log.String(), "maxmemory_policy="+policy); got != want {
				t.Errorf("warned: %v, want %v; log %q", got, want, log.String())
			}
		})
	}
}
