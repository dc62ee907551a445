package reload

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tocsin-dev/tocsin/internal/fault"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
)

const (
	good  = "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 1}]}]"
	other = "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 2}]}]"
	wrong = "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_que > 2}]}]"
)

// disk is a folder with one file, which may be gone.
type disk struct {
	mu      sync.Mutex
	text    string // guarded by mu
	gone    bool   // guarded by mu
	hangup  chan struct{}
	brought []string // guarded by mu; what came into force
}

func (d *disk) read() (map[string][]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone {
		return nil, errors.New("r.yaml: no such file")
	}
	return map[string][]byte{"r.yaml": []byte(d.text)}, nil
}

// write puts a text into the file, or removes it when the text is empty.
func (d *disk) write(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone, d.text = text == "", text
}

func (d *disk) bring(p *engine.Program) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.brought = append(d.brought, string(p.Set().Files["r.yaml"]))
}

func (d *disk) broughtSoFar() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.brought)
}

func reloader(t *testing.T, d *disk) *Reloader {
	t.Helper()
	compile := func(files map[string][]byte) (*engine.Program, error) { return engine.CompileFiles(files, nil) }
	files, err := d.read()
	if err != nil {
		t.Fatal(err)
	}
	program, err := compile(files)
	if err != nil {
		t.Fatal(err)
	}
	d.hangup = make(chan struct{}, 1)
	return New(Options{
		Read: d.read, Compile: compile, Bring: d.bring,
		Hangup: d.hangup, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	}, files, program)
}

// results counts reloads by their results.
func (r *Reloader) counts() map[string]float64 {
	counts := map[string]float64{}
	for _, result := range []string{"changed", "unchanged", "refused"} {
		if n := testutil.ToFloat64(r.results.WithLabelValues(result)); n > 0 {
			counts[result] = n
		}
	}
	return counts
}

func TestReloadTakesGoodFilesAndRefusesWrongOnesWhole(t *testing.T) {
	d := &disk{text: good}
	r := reloader(t, d)
	server := &Server{Reloader: r}
	if answer, err := server.Reload(t.Context(), &rulev1.ReloadRequest{}); err != nil || answer.GetChanged() || answer.GetRules() != 1 || len(answer.GetRuleSetHash()) != 64 {
		t.Errorf("the same files: %v, %v", answer, err)
	}
	d.write(other)
	answer, err := server.Reload(t.Context(), &rulev1.ReloadRequest{})
	if err != nil || !answer.GetChanged() || !slices.Equal(d.broughtSoFar(), []string{good, other}) {
		t.Fatalf("other files: %v, %v, brought %v", answer, err, d.broughtSoFar())
	}
	d.write(wrong)
	_, err = server.Reload(t.Context(), &rulev1.ReloadRequest{})
	if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "did you mean `jobs.in_queue`?") {
		t.Errorf("wrong files: %v", err)
	}
	if testutil.ToFloat64(r.good) != 0 || len(d.broughtSoFar()) != 2 {
		t.Errorf("after wrong files: successful %v, brought %v", testutil.ToFloat64(r.good), d.broughtSoFar())
	}
	d.write("")
	if _, err := server.Reload(t.Context(), &rulev1.ReloadRequest{}); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no files: %v", err)
	}
	d.write(other)
	if answer, err := server.Reload(t.Context(), &rulev1.ReloadRequest{}); err != nil || answer.GetChanged() || testutil.ToFloat64(r.good) != 1 {
		t.Errorf("put back: %v, %v, successful %v", answer, err, testutil.ToFloat64(r.good))
	}
}

func TestChangedFilesAreTakenWhenTheyRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{text: good}
		r := reloader(t, d)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		looks := func(n int) {
			time.Sleep(time.Duration(n) * watchEvery)
			synctest.Wait()
		}
		check := func(what string, brought int, counts map[string]float64, good float64) {
			t.Helper()
			got := r.counts()
			same := len(got) == len(counts)
			for result, n := range counts {
				same = same && got[result] == n
			}
			if len(d.broughtSoFar()) != brought || !same || testutil.ToFloat64(r.good) != good {
				t.Errorf("%s: brought %d times, %v, successful %v; want %d, %v, %v", what, len(d.broughtSoFar()), got, testutil.ToFloat64(r.good), brought, counts, good)
			}
		}
		time.Sleep(time.Second) // beside the looks
		looks(3)
		check("nothing changed", 0, nil, 1)
		d.write("groups: [{name: g, rul")
		looks(1)
		d.write(other)
		looks(1)
		check("half written, then another", 0, nil, 1)
		looks(1)
		check("at rest", 1, map[string]float64{"changed": 1}, 1)
		d.write(wrong)
		looks(10)
		check("wrong, told once", 1, map[string]float64{"changed": 1, "refused": 1}, 0)
		d.write("")
		looks(1)
		check("gone for a moment", 1, map[string]float64{"changed": 1, "refused": 1}, 0)
		looks(10)
		check("gone, told once", 1, map[string]float64{"changed": 1, "refused": 2}, 0)
		d.write(other)
		looks(1)
		d.hangup <- struct{}{}
		synctest.Wait()
		check("put back and asked for", 2, map[string]float64{"changed": 1, "refused": 2, "unchanged": 1}, 1)
		looks(10)
		check("and left alone", 2, map[string]float64{"changed": 1, "refused": 2, "unchanged": 1}, 1)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}
