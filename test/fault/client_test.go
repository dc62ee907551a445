package fault

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/test/fault/plan"
	"github.com/tocsin-dev/tocsin/test/fault/stack"
)

const (
	// callLimit bounds one call of the collector, and callAgain is the pause before
	// it is made again.
	callLimit = 3 * time.Second
	callAgain = 100 * time.Millisecond
	// webhookAfter is when RunPod calls after the submission of a job: after its
	// end.
	webhookAfter = 1600 * time.Millisecond
	// webhookTries is how often RunPod calls.
	webhookTries = 3
)

// client submits jobs as a user's program does: it registers each until that is
// acknowledged. It also stands for RunPod, which calls at a job's end.
type client struct {
	t    *testing.T
	base string
	http http.Client
	ctx  context.Context //nolint:containedctx // it ends all that the client does
	work sync.WaitGroup

	mu           sync.Mutex
	paths        map[string]string // guarded by mu; the webhooks, by endpoint
	acknowledged []plan.Job        // guarded by mu
	asked        map[string]int    // guarded by mu; how often each job was to be registered, by its id
}

func newClient(t *testing.T, s *stack.Stack) *client {
	ctx, cancel := context.WithCancel(t.Context())
	c := &client{t: t, base: "http://" + s.Link(plan.To(plan.Client, plan.Collector)).Addr(), http: http.Client{Timeout: callLimit}, ctx: ctx, paths: map[string]string{}, asked: map[string]int{}}
	t.Cleanup(func() {
		cancel()
		c.work.Wait()
		c.http.CloseIdleConnections()
	})
	return c
}

// call makes one call, and returns what was answered with 200.
func (c *client) call(method, path, body string) (string, error) {
	req, err := http.NewRequestWithContext(c.ctx, method, c.base+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s answered %d %s", method, path, resp.StatusCode, text)
	}
	return string(text), err
}

// learn asks for the webhooks of the endpoints, until all are known.
func (c *client) learn() {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		text, err := c.call(http.MethodGet, "/v1/endpoints", "")
		var answer struct {
			Endpoints []struct {
				ID   string `json:"endpoint_id"`
				Path string `json:"webhook_path"`
			} `json:"endpoints"`
		}
		if err == nil {
			err = json.Unmarshal([]byte(text), &answer)
		}
		if err == nil && len(answer.Endpoints) > len(plan.Endpoints) {
			for _, e := range answer.Endpoints {
				c.paths[e.ID] = e.Path
			}
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the collector does not list its endpoints: %s, %v", text, err)
		}
		<-time.After(callAgain)
	}
}

// submit registers a job, and calls its webhook when it has ended.
func (c *client) submit(j plan.Job) {
	if j.Webhook {
		c.work.Go(func() { c.webhook(j) })
	}
	c.work.Go(func() {
		body := fmt.Sprintf(`{"endpoint_id":%q,"job_ids":[%q]}`, j.Endpoint, j.ID)
		for c.ctx.Err() == nil {
			c.mu.Lock()
			c.asked[j.ID]++
			c.mu.Unlock()
			if _, err := c.call(http.MethodPost, "/v1/jobs", body); err == nil {
				c.mu.Lock()
				c.acknowledged = append(c.acknowledged, j)
				c.mu.Unlock()
				return
			}
			c.pause(callAgain)
		}
	})
}

func (c *client) webhook(j plan.Job) {
	c.pause(webhookAfter)
	for range webhookTries {
		if _, err := c.call(http.MethodPost, c.paths[j.Endpoint], fmt.Sprintf(`{"id":%q,"status":"COMPLETED"}`, j.ID)); err == nil {
			return
		}
		c.pause(10 * callAgain)
	}
}

func (c *client) pause(d time.Duration) {
	select {
	case <-c.ctx.Done():
	case <-time.After(d):
	}
}

// times tells how often a job was to be registered.
func (c *client) times(job string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[job]
}

// acked lists the jobs whose registration was acknowledged.
func (c *client) acked() []plan.Job {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.acknowledged)
}
