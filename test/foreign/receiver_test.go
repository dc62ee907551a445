package foreign

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/notify/webhook"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// receiver takes webhooks in three formats and checks each with the code of
// those who defined it, or from their documents.
type receiver struct {
	url string

	mu     sync.Mutex
	bodies []string  // guarded by mu; all that came, whole
	told   []telling // guarded by mu
	faults []string  // guarded by mu
}

// telling is what a webhook says of one alert.
type telling struct {
	format, name, status string
	labels               map[string]string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	server := httptest.NewServer(r)
	r.url = server.URL
	t.Cleanup(func() {
		server.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		report(t, "the receiver", r.faults)
	})
	return r
}

// ServeHTTP takes a webhook.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	if err != nil {
		return // a sender that was killed in the middle of a request
	}
	checks := map[string]func([]byte, http.Header) ([]telling, error){
		"/standard": checkStandard, "/simple": checkSimple, "/alertmanager": checkAlertmanager,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodies = append(r.bodies, fmt.Sprint(req.Header)+string(body))
	check := checks[req.URL.Path]
	switch {
	case check == nil || req.Method != http.MethodPost:
		r.faults = append(r.faults, req.Method+" "+req.URL.Path)
		return
	case req.Header.Get("Content-Type") != "application/json":
		r.faults = append(r.faults, "content type "+req.Header.Get("Content-Type"))
	}
	told, err := check(body, req.Header)
	if err != nil {
		r.faults = append(r.faults, fmt.Sprintf("%s: %v\n%s", req.URL.Path, err, body))
	}
	r.told = append(r.told, told...)
}

// has reports whether an alert was told in a format with a status.
func (r *receiver) has(format, name, status string) bool { return r.count(format, name, status) > 0 }

func (r *receiver) count(format, name, status string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, one := range r.told {
		if one.format == format && one.name == name && one.status == status {
			n++
		}
	}
	return n
}

// all returns every body and header that came.
func (r *receiver) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.bodies, "\n")
}

// checkStandard verifies a message of Standard Webhooks twice: with the
// reference library and with the formula of its specification.
func checkStandard(body []byte, header http.Header) ([]telling, error) {
	reference, err := standardwebhooks.NewWebhook(hookSecret)
	if err != nil {
		return nil, err
	}
	if err := reference.Verify(body, header); err != nil {
		return nil, fmt.Errorf("the reference library says: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(hookSecret, "whsec_"))
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", header.Get("webhook-id"), header.Get("webhook-timestamp"), body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	if got := header.Get("webhook-signature"); !slices.Contains(strings.Fields(got), want) {
		return nil, fmt.Errorf("signature %q, want %q", got, want)
	}
	var message struct {
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      struct {
			Alerts []struct {
				ID       string            `json:"id"`
				Status   string            `json:"status"`
				Labels   map[string]string `json:"labels"`
				StartsAt time.Time         `json:"startsAt"`
			} `json:"alerts"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &message); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(message.Type, "alert.") || time.Since(message.Timestamp).Abs() > time.Hour || len(message.Data.Alerts) == 0 {
		return nil, fmt.Errorf("type %q, timestamp %v, %d alerts", message.Type, message.Timestamp, len(message.Data.Alerts))
	}
	var told []telling
	for _, a := range message.Data.Alerts {
		if a.ID == "" || a.StartsAt.IsZero() {
			err = fmt.Errorf("an alert without id or start")
		}
		told = append(told, telling{"standard", a.Labels["alertname"], a.Status, a.Labels})
	}
	return told, err
}

// checkSimple demands the four keys of the format simple, their types, and
// nothing else.
func checkSimple(body []byte, _ http.Header) ([]telling, error) {
	var message map[string]any
	if err := json.Unmarshal(body, &message); err != nil {
		return nil, err
	}
	title, titleOK := message["title"].(string)
	sentence, messageOK := message["message"].(string)
	_, severityOK := message["severity"].(string)
	timestamp, timestampOK := message["timestamp"].(float64)
	if !titleOK || !messageOK || !severityOK || !timestampOK || len(message) != 4 || title == "" || sentence == "" {
		return nil, fmt.Errorf("not the four keys title, message, severity and timestamp")
	}
	if timestamp != math.Trunc(timestamp) || math.Abs(timestamp-float64(time.Now().Unix())) > 3600 {
		return nil, fmt.Errorf("timestamp %v is not about now in whole seconds", timestamp)
	}
	return []telling{{format: "simple", name: title}}, nil
}

// checkAlertmanager decodes with the type that Alertmanager itself sends, and
// allows one member beside those of this type: the sequence, by which a receiver
// can drop what arrives late.
func checkAlertmanager(body []byte, _ http.Header) ([]telling, error) {
	var message struct {
		webhook.Message
		Sequence uint64 `json:"sequence"`
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&message); err != nil {
		return nil, err
	}
	if message.Version != "4" || message.GroupKey == "" || message.Receiver == "" || len(message.Alerts) == 0 {
		return nil, fmt.Errorf("version %q, group key %q, receiver %q, %d alerts", message.Version, message.GroupKey, message.Receiver, len(message.Alerts))
	}
	var told []telling
	for _, a := range message.Alerts {
		if a.Fingerprint == "" || a.StartsAt.IsZero() || (a.Status == "firing") != a.EndsAt.IsZero() {
			return nil, fmt.Errorf("alert %s: fingerprint %q, from %v to %v", a.Status, a.Fingerprint, a.StartsAt, a.EndsAt)
		}
		told = append(told, telling{"alertmanager", a.Labels["alertname"], a.Status, a.Labels})
	}
	return told, nil
}
