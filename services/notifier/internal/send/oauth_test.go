package send

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	commoncfg "github.com/prometheus/common/config"
)

func oauth(tokenURL string) *commoncfg.HTTPClientConfig {
	conf := commoncfg.DefaultHTTPClientConfig
	conf.OAuth2 = &commoncfg.OAuth2{ClientID: "tocsin", ClientSecret: "s", TokenURL: tokenURL}
	return &conf
}

// The package that fetches tokens waits for them without a bound of its own.
func TestAHangingTokenServerIsGivenUp(t *testing.T) {
	var asked, reached atomic.Int64
	release := make(chan struct{})
	tokens := server(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		asked.Add(1)
		<-release
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"t","token_type":"Bearer","expires_in":3600}`)
	})
	s := server(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	c := client(t, Options{HTTP: oauth(tokens.URL), Timeout: 50 * time.Millisecond})
	for range 2 * maxAbandoned {
		if a := post(t, c, s.URL); a.Err == nil || !strings.Contains(a.Err.Error(), "no whole answer within 50ms") {
			t.Fatalf("answer %+v, want our timeout", a)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests reached the receiver without a token", n)
	}
	close(release)
	patient := *c
	patient.timeout = 10 * time.Second
	if a := post(t, &patient, s.URL); a.Status != 200 || reached.Load() != 1 || asked.Load() != 1 {
		t.Errorf("answer %+v after %d requests and %d questions for a token, want one of each", a, reached.Load(), asked.Load())
	}
}

func TestATokenServerIsGuardedBehindAProxyToo(t *testing.T) {
	conf := oauth("http://metadata.google.internal/token")
	if _, err := NewClient(Options{Name: "x", HTTP: conf}); err == nil || !strings.Contains(err.Error(), "token_url") {
		t.Errorf("error %v, want one that names token_url", err)
	}
}
