package runpod_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

// answers is a transport without sockets, for tests in a bubble.
type answers func(*http.Request) *http.Response

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) { return a(r), nil }

func TestTheGateLeavesAShareOfTheQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, made := time.Now(), 0
		c, err := runpod.New(runpod.Options{APIKey: key(testKey), Timeout: patient, Transport: answers(func(*http.Request) *http.Response {
			made++
			into := int(time.Since(start).Seconds()) % 60
			return &http.Response{StatusCode: 200, Header: http.Header{
				"Ratelimit":        {fmt.Sprintf(`"minute";r=%d;t=%d`, 60-made, 60-into)},
				"Ratelimit-Policy": {`"minute";q=60;w=60`},
			}, Body: io.NopCloser(strings.NewReader(`{"pods":[]}`))}
		})})
		if err != nil {
			t.Fatal(err)
		}
		var refused error
		for refused == nil {
			_, refused = c.Pods(t.Context())
		}
		e, ok := errors.AsType[*runpod.Error](refused)
		if !ok || e.Kind != runpod.RateLimited || e.Status != 0 || e.RetryAfter != time.Minute {
			t.Errorf("refused with %v, want rate limited for a minute without a call", refused)
		}
		// The first call was made before any quota was known.
		if made != 31 {
			t.Errorf("%d calls in the first minute, want half of 60 and the first", made)
		}
		if _, err := c.Health(t.Context(), runpod.Endpoint{ID: "ep1"}); runpod.KindOf(err) != runpod.Malformed {
			t.Errorf("the runtime API is held back too: %v", err)
		}
		time.Sleep(55 * time.Second)
		before := time.Now()
		if _, err := c.Pods(t.Context()); err != nil || time.Since(before) != 5*time.Second {
			t.Errorf("5 s before the reset: %v after %v, want a wait of 5 s", err, time.Since(before))
		}
	})
}

func TestRetryAfterHoldsBackTheNextCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := 0
		c, err := runpod.New(runpod.Options{APIKey: key(testKey), Timeout: patient, Transport: answers(func(*http.Request) *http.Response {
			made++
			status := 200
			if made == 1 {
				status = 429
			}
			return &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {"7"}}, Body: io.NopCloser(strings.NewReader(`{"pods":[]}`))}
		})})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Pods(t.Context())
		if e, ok := errors.AsType[*runpod.Error](err); !ok || e.RetryAfter != 7*time.Second {
			t.Errorf("error %v, want a wait of 7 s", err)
		}
		before := time.Now()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Pods(short); runpod.KindOf(err) != runpod.Timeout || made != 1 {
			t.Errorf("a caller with 1 s left: %v after %d calls, want a timeout without a call", err, made)
		}
		if _, err := c.Pods(t.Context()); err != nil || time.Since(before) != 7*time.Second {
			t.Errorf("%v after %v, want a good answer after 7 s", err, time.Since(before))
		}
	})
}
