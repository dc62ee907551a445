package ingest_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/services/collector/internal/ingest"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

// desk is a service before a follower of jobs that only takes note.
type desk struct {
	*ingest.Directory
	mux      *proc.Mux
	registry *prometheus.Registry

	mu  sync.Mutex
	ids []string // guarded by mu: of the jobs that webhooks told of
}

func (d *desk) Register(context.Context, string, []string) (registered, already int, err error) {
	return 0, 0, errors.New("nobody registers here")
}

func (d *desk) Webhook(_ string, j runpod.Job) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ids = append(d.ids, j.ID)
	return nil
}

func newDesk() *desk {
	d := &desk{Directory: ingest.NewDirectory("default", "secret"), mux: proc.NewMux(), registry: prometheus.NewRegistry()}
	d.Put(ingest.Endpoint{ID: "ep"})
	ingest.NewService(ingest.Options{
		Account: "default", Jobs: d, Directory: d.Directory, Settle: func(context.Context, string) {},
		Registerer: d.registry, Log: slog.New(slog.DiscardHandler),
	}).Routes(d.mux)
	return d
}

// post sends a webhook and returns the status of the answer.
func (d *desk) post(body io.Reader) int {
	w := httptest.NewRecorder()
	d.mux.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/webhook/"+d.Token("ep"), body))
	return w.Code
}

// results returns how many webhooks came to what.
func (d *desk) results(t *testing.T) map[string]int {
	t.Helper()
	families, err := d.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			n[m.GetLabel()[0].GetValue()] = int(m.GetCounter().GetValue())
		}
	}
	return n
}

func TestAWebhookThatNamesNoPossibleJobIsAnsweredAndLeftOut(t *testing.T) {
	d := newDesk()
	for _, id := range []string{"good-u1", "", ".", "..", "a b", "a\\nb", "a\\u0000", strings.Repeat("x", 129)} {
		if code := d.post(strings.NewReader(`{"id":"` + id + `","status":"COMPLETED"}`)); code != http.StatusOK {
			t.Errorf("%q was answered %d", id, code)
		}
	}
	if diff := cmp.Diff([]string{"good-u1"}, d.ids); diff != "" {
		t.Errorf("jobs told of (-want +got):\n%s", diff)
	}
}

func TestWebhooksThatArriveSlowlyHoldUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk()
		var slow sync.WaitGroup
		var open []*io.PipeWriter
		more := func(n int) {
			for range n {
				body, end := io.Pipe()
				open = append(open, end)
				slow.Go(func() {
					if code := d.post(body); code != http.StatusOK {
						t.Errorf("a slow webhook was answered %d", code)
					}
				})
			}
			synctest.Wait()
		}
		answered := func() time.Duration {
			began := time.Now()
			if code := d.post(strings.NewReader(`{"id":"quick","status":"COMPLETED"}`)); code != http.StatusOK {
				t.Errorf("answered %d", code)
			}
			return time.Since(began)
		}
		more(200)
		if took := answered(); took > 0 {
			t.Errorf("answered after %v beside 200 that arrive slowly", took)
		}
		more(56) // as many as are read at once
		if took := answered(); took > time.Second {
			t.Errorf("answered after %v while no more can be read", took)
		}
		for _, end := range open {
			_ = end.CloseWithError(io.ErrUnexpectedEOF)
		}
		slow.Wait()
		if diff := cmp.Diff(map[string]int{"ok": 1, "busy": 1, "broken": 256}, d.results(t)); diff != "" {
			t.Errorf("webhooks by what came of them (-want +got):\n%s", diff)
		}
	})
}
