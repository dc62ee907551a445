package receiver_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/receiver"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func post(t *testing.T, r http.Handler, id, body, key string) int {
	t.Helper()
	signer, err := standardwebhooks.NewWebhook(key)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	signature, err := signer.Sign(id, now, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("webhook-signature", signature)
	rec := httptest.NewRecorder()
	r.ServeHTTP(rec, req)
	return rec.Code
}

const firing = `{"type":"alert.firing","data":{"alerts":[{"status":"firing",
 "labels":{"alertname":"CrashLoop","severity":"critical"},
 "annotations":{"summary":"img-prod crash-loops\n\u001b[2Jand more"},
 "startsAt":"2026-11-23T08:00:00Z","endsAt":"0001-01-01T00:00:00Z"}]}}`

const resolved = `{"type":"alert.resolved","data":{"alerts":[{"status":"resolved",
 "labels":{"alertname":"CrashLoop","severity":"critical"},
 "annotations":{"summary":"img-prod crash-loops"},
 "startsAt":"2026-11-23T08:00:00Z","endsAt":"2026-11-23T08:03:30Z",
 "worst":[{"name":"jobs.in_queue","number":212,"at":"2026-11-23T08:01:00Z"},{"name":"workers.running","number":0,"lowest":true}]}]}}`

func TestReceiver(t *testing.T) {
	for name, test := range map[string]struct {
		body, key string
		code      int
		want      []string
	}{
		"a signed firing alert is one line, whatever its text holds": {
			firing, secret, 200, []string{"FIRING", "critical", "CrashLoop", "img-prod crash-loops  [2Jand more"},
		},
		"a resolved alert tells how long it lasted and how bad it was": {
			resolved, secret, 200, []string{"RESOLVED", "after 3m30s, worst jobs.in_queue 212: img-prod"},
		},
		"another signature is refused":      {firing, "whsec_" + strings.Repeat("A", 32), 401, nil},
		"a body that is no JSON is refused": {"garbage", secret, 400, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			r, err := receiver.New(receiver.Options{Out: &out, Secret: secret})
			if err != nil {
				t.Fatal(err)
			}
			if code := post(t, r, "msg_1", test.body, test.key); code != test.code {
				t.Fatalf("answered %d, want %d", code, test.code)
			}
			if lines := strings.Count(out.String(), "\n"); lines != min(1, len(test.want)) {
				t.Errorf("printed %d lines: %q", lines, out.String())
			}
			last := 0
			for _, want := range test.want {
				at := strings.Index(out.String()[last:], want)
				if at < 0 {
					t.Fatalf("printed %q, which lacks %q in its place", out.String(), want)
				}
				last += at
			}
		})
	}
}

func TestARepeatIsAnsweredAndNotPrinted(t *testing.T) {
	var out bytes.Buffer
	r, err := receiver.New(receiver.Options{Out: &out, Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if code := post(t, r, "msg_1", firing, secret); code != 200 {
			t.Fatalf("answered %d, want 200", code)
		}
	}
	if lines := strings.Count(out.String(), "\n"); lines != 1 {
		t.Errorf("printed %d lines for one delivery sent three times, want 1", lines)
	}
}

func TestABadSecretIsRefused(t *testing.T) {
	if _, err := receiver.New(receiver.Options{Out: &bytes.Buffer{}, Secret: "whsec_!!"}); err == nil {
		t.Error("a secret that is no base64 was taken")
	}
}

func TestJSONPrintsEachDeliveryAsItCame(t *testing.T) {
	var out bytes.Buffer
	r, err := receiver.New(receiver.Options{Out: &out, Secret: secret, JSON: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if code := post(t, r, "msg_1", firing, secret); code != 200 {
			t.Fatalf("answered %d, want 200", code)
		}
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("printed %d lines for two deliveries: %q", len(lines), out.String())
	}
	for i, line := range lines {
		var got receiver.Line
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatal(err)
		}
		var body, want any
		if err := errors.Join(json.Unmarshal(got.Body, &body), json.Unmarshal([]byte(firing), &want)); err != nil {
			t.Fatal(err)
		}
		if got.ID != "msg_1" || got.Repeat != (i > 0) || !reflect.DeepEqual(body, want) {
			t.Errorf("line %d is %s", i, line)
		}
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestWhatCannotBePrintedIsNotReceived(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		r, err := receiver.New(receiver.Options{Out: full{}, Secret: secret, JSON: asJSON})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if code := post(t, r, "msg_1", firing, secret); code != 500 {
				t.Errorf("answered %d, want 500", code)
			}
		}
	}
}

func TestNewSecretsAreDifferentAndGood(t *testing.T) {
	one, two := receiver.NewSecret(), receiver.NewSecret()
	if one == two {
		t.Error("two secrets are equal")
	}
	if _, err := receiver.New(receiver.Options{Out: &bytes.Buffer{}, Secret: one}); err != nil {
		t.Errorf("%s: %v", one, err)
	}
}
