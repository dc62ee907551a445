package rehearsal

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/cli"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
)

// screen is what a command printed so far.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// patience bounds every wait. It is no expectation of speed: it only ends a test
// that hangs.
const patience = time.Minute

// client asks the servers of the tests.
var client = &http.Client{Timeout: patience}

var shownURL = regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+`)

// start runs a command until the test ends and returns its address.
func start(t *testing.T, run func(context.Context, cli.Terminal) error) (url string, out *screen) {
	t.Helper()
	out = new(screen)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, cli.Terminal{Out: out, Err: out}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for url == "" {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("it ended: %v", err)
		case <-deadline:
			t.Fatalf("it shows no address: %s", out)
		case <-tick.C:
			url = shownURL.FindString(out.String())
		}
	}
	if err := (&Healthcheck{URL: url + "/healthz"}).Run(t.Context()); err != nil {
		t.Errorf("its health: %v", err)
	}
	return url, out
}

// status asks for a URL with a bearer token, where there is one.
func status(t *testing.T, url, token string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestSimulateServesAnAccountToWhoHasItsKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("rpa_MINE\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		command Simulate
		key     string
		shown   bool
	}{
		"the well-known key is shown": {Simulate{Address: "127.0.0.1:0", Scenario: "quiet"}, sim.DefaultKey, true},
		"a key in a file is not":      {Simulate{Address: "127.0.0.1:0", Scenario: "demo", Speed: 60, KeyFile: file}, "rpa_MINE", false},
	} {
		t.Run(name, func(t *testing.T) {
			url, out := start(t, test.command.Run)
			for token, want := range map[string]int{test.key: 200, "rpa_OTHER": 401, "": 401} {
				if got := status(t, url+"/v2/serverless", token); got != want {
					t.Errorf("with the key %q it answers %d, want %d", token, got, want)
				}
			}
			if strings.Contains(out.String(), test.key) != test.shown {
				t.Errorf("it shows %s", out)
			}
		})
	}
}

func TestReceivePrintsWhatIsSigned(t *testing.T) {
	url, out := start(t, (&Receive{Address: "127.0.0.1:0", JSON: true}).Run)
	_, key, _ := strings.Cut(out.String(), "Their secret: ")
	signer, err := standardwebhooks.NewWebhook(strings.TrimSpace(key))
	if err != nil {
		t.Fatalf("the secret that it shows: %v in %s", err, out)
	}
	const body = `{"type":"alert.firing","data":{"alerts":[]}}`
	now := time.Now()
	signature, err := signer.Sign("msg_1", now, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	for signed, want := range map[string]int{signature: 200, "v1,AAAA": 401} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/any/path", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("webhook-id", "msg_1")
		req.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
		req.Header.Set("webhook-signature", signed)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("signed %s it answers %d, want %d", signed, resp.StatusCode, want)
		}
	}
	if !strings.Contains(out.String(), `{"webhook_id":"msg_1","repeat":false,"body":`+body+`}`) {
		t.Errorf("it prints %s", out)
	}
}

func TestMistakesAreOnesOfUsage(t *testing.T) {
	term := cli.Terminal{Out: io.Discard, Err: io.Discard}
	for name, test := range map[string]struct {
		run  func(context.Context, cli.Terminal) error
		want string
	}{
		"an open address without a key": {(&Simulate{Address: "0.0.0.0:0"}).Run, "--key-file"},
		"a speed that is none":          {(&Simulate{Address: "127.0.0.1:0", Speed: -1}).Run, "speed"},
		"a key and its file":            {(&Simulate{Address: "127.0.0.1:0", Key: "a", KeyFile: "b"}).Run, "key"},
		"a key file that is not":        {(&Simulate{Address: "127.0.0.1:0", KeyFile: "/nowhere"}).Run, "/nowhere"},
		"a secret that is none":         {(&Receive{Address: "127.0.0.1:0", Secret: "whsec_!!"}).Run, "secret"},
		"a secret file that is not":     {(&Receive{Address: "127.0.0.1:0", SecretFile: "/nowhere"}).Run, "/nowhere"},
	} {
		if err := test.run(t.Context(), term); !proc.IsUsage(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want a mistake of usage with %q", name, err, test.want)
		}
	}
}
