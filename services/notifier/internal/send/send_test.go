package send

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	commoncfg "github.com/prometheus/common/config"
)

func client(t *testing.T, o Options) *Client {
	t.Helper()
	o.Name, o.UserAgent = "test", "Tocsin/test"
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func server(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func post(t *testing.T, c *Client, to string) Answer {
	t.Helper()
	h := http.Header{"Content-Type": {"application/json"}, "Webhook-Id": {"msg_1"}}
	return c.Post(t.Context(), time.Now(), Request{URL: to, Header: h, Body: []byte("{}\n")})
}

func TestPostSendsWhatItIsGiven(t *testing.T) {
	var got *http.Request
	var body []byte
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		fmt.Fprint(w, "thanks")
	})
	a := post(t, client(t, Options{}), s.URL+"/in?x=1")
	if a.Status != 200 || a.Err != nil || a.Excerpt != "thanks" {
		t.Fatalf("answer %+v", a)
	}
	if got.Method != http.MethodPost || got.URL.RequestURI() != "/in?x=1" || string(body) != "{}\n" ||
		got.Header.Get("webhook-id") != "msg_1" || got.Header.Get("User-Agent") != "Tocsin/test" || got.ContentLength != 3 {
		t.Errorf("request %s %s %q with %v", got.Method, got.URL, body, got.Header)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var reached atomic.Bool
	there := server(t, func(http.ResponseWriter, *http.Request) { reached.Store(true) })
	for _, status := range []int{301, 302, 303, 307, 308} {
		s := server(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, there.URL, status) })
		follow := commoncfg.DefaultHTTPClientConfig // follow_redirects is its default
		if a := post(t, client(t, Options{HTTP: &follow}), s.URL); a.Status != status || reached.Load() {
			t.Errorf("status %d became %+v; reached the other server: %t", status, a, reached.Load())
		}
	}
}

func TestAHangingReceiverIsGivenUp(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"before the answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"within the answer": func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"one byte at a time": func(w http.ResponseWriter, r *http.Request) {
			for tick := time.NewTicker(5 * time.Millisecond); ; {
				select {
				case <-r.Context().Done():
					tick.Stop()
					return
				case <-tick.C:
					_, _ = w.Write([]byte("x"))
					_ = http.NewResponseController(w).Flush()
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := server(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // else the server does not see the client leave
				h(w, r)
			})
			a := post(t, client(t, Options{Timeout: 100 * time.Millisecond}), s.URL)
			if a.Err == nil || !strings.Contains(a.Err.Error(), "no whole answer within 100ms") {
				t.Errorf("answer %+v, want our timeout", a)
			}
		})
	}
}

func TestALargeAnswerIsCutOff(t *testing.T) {
	var sent atomic.Int64
	s := server(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := bytes.Repeat([]byte("a"), 1<<20)
		for range 100 {
			n, err := w.Write(chunk)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	a := post(t, client(t, Options{}), s.URL)
	if a.Status != 200 || a.Err != nil || len(a.Excerpt) > maxExcerpt {
		t.Errorf("status %d, error %v, excerpt of %d bytes", a.Status, a.Err, len(a.Excerpt))
	}
	s.CloseClientConnections()
	if sent.Load() > 50<<20 {
		t.Errorf("%d bytes were taken", sent.Load())
	}
}

func TestACompressedAnswerIsNotUnpacked(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 10<<20))
	_ = z.Close()
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") == "gzip" {
			t.Error("the client asks for compression")
		}
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	})
	if a := post(t, client(t, Options{}), s.URL); a.Status != 200 || a.Err != nil {
		t.Errorf("answer %+v", a)
	}
}

func TestForbiddenAddressesAreRefused(t *testing.T) {
	strict := client(t, Options{Guard: Strict})
	s := server(t, func(http.ResponseWriter, *http.Request) { t.Error("a strict client reached loopback") })
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]"} {
		if a := post(t, strict, "http://"+net.JoinHostPort(strings.Trim(host, "[]"), port)); a.Err == nil {
			t.Errorf("%s was reached", host)
		}
	}
	for _, to := range []string{"http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://[fe80::1]/"} {
		a := post(t, client(t, Options{}), to)
		if a.Err == nil || !strings.Contains(a.Err.Error(), "not allowed") {
			t.Errorf("%s: %+v, want a refusal", to, a)
		}
	}
}

func TestAProxyDoesNotLeadAroundTheGuard(t *testing.T) {
	var asked atomic.Int64
	proxy := server(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	u, _ := url.Parse(proxy.URL)
	conf := commoncfg.DefaultHTTPClientConfig
	conf.ProxyURL = commoncfg.URL{URL: u}
	c := client(t, Options{HTTP: &conf})
	for _, host := range []string{
		"169.254.169.254", "169.254.169.254.", "2852039166", "0xa9fea9fe", "0XA9FEA9FE", "0xa9.254.0251.0xfe", "169.254.43518",
		"0251.0376.0251.0376", "169.254.0xa9fe", "1.0x", "[::ffff:169.254.169.254]",
		"metadata.google.internal", "Metadata.Google.Internal.", "metadata", "instance-data.ec2.internal",
	} {
		if a := post(t, c, "http://"+host+"/"); a.Err == nil || asked.Load() != 0 {
			t.Fatalf("%s: answer %+v after %d requests to the proxy, want a refusal", host, a, asked.Load())
		}
	}
	for i, host := range []string{"receiver.example", "receiver.example.", "10.0.0.1", "host1", "a.b2", "0xyz.example", "8.8.8.8"} {
		if a := post(t, c, "http://"+host+"/"); a.Err != nil || asked.Load() != int64(i+1) {
			t.Errorf("%s: answer %+v after %d requests to the proxy, want %d", host, a, asked.Load(), i+1)
		}
	}
}

func TestTheEnvironmentsProxyIsNotUsed(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	if c := client(t, Options{}); c.proxy != nil {
		t.Error("the client has a proxy")
	}
}

func TestADeadKeptConnectionIsNoHiddenRetry(t *testing.T) {
	var handled atomic.Int64
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if handled.Add(1) == 2 {
			conn, _, _ := w.(http.Hijacker).Hijack()
			_ = conn.Close() // processed, then cut off
		}
	})
	c := client(t, Options{})
	if a := post(t, c, s.URL); a.Err != nil {
		t.Fatal(a.Err)
	}
	if a := post(t, c, s.URL); a.Err == nil {
		t.Error("a cut connection showed no error")
	}
	if handled.Load() != 2 {
		t.Errorf("the server handled %d requests, want 2", handled.Load())
	}
}

func TestErrorsAndExcerptsHoldNoSecrets(t *testing.T) {
	const canary = "canary-5f2a9c71d0"
	echo := server(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "no access to %s with %s and %s", r.URL.Path, r.URL.RawQuery, r.Header.Get("Authorization"))
	})
	closed := httptest.NewServer(nil)
	closed.Close()
	for _, base := range []string{echo.URL, closed.URL, "http://169.254.169.254", "http://does-not-exist.invalid"} {
		u, _ := url.Parse(base)
		u.User = url.UserPassword("user", canary)
		u.Path, u.RawQuery = "/services/"+canary, "key="+canary
		a := post(t, client(t, Options{Timeout: 5 * time.Second}), u.String())
		if shown := fmt.Sprintf("%+v", a); strings.Contains(shown, canary) {
			t.Errorf("%s: %s", base, shown)
		}
	}
	if a := post(t, client(t, Options{}), "http://["+canary); a.Err == nil || strings.Contains(a.Err.Error(), canary) {
		t.Errorf("a URL that cannot be parsed: %v", a.Err)
	}
}

func TestOurOwnEndIsNamed(t *testing.T) {
	s := server(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(fmt.Errorf("the lease ended")) })
	a := client(t, Options{}).Post(ctx, time.Now(), Request{URL: s.URL})
	if a.Err == nil || a.Err.Error() != "the lease ended" {
		t.Errorf("answer %+v, want the cause", a)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		value string
		want  time.Duration
	}{
		{"", 0},
		{"120", 2 * time.Minute},
		{" 7 ", 7 * time.Second},
		{"0", 0},
		{"-5", 0},
		{"soon", 0},
		{"1.5", 0},
		{"99999999999999999999999", longest},
		{"9000000000000000000", longest},
		{"-99999999999999999999999", 0},
		{"Sun, 01 Nov 2026 08:10:00 GMT", 10 * time.Minute},
		{"Sunday, 01-Nov-26 08:10:00 GMT", 10 * time.Minute},
		{"Sat, 31 Oct 2026 08:10:00 GMT", 0},
	} {
		if got := retryAfter(c.value, now); got != c.want {
			t.Errorf("%q: %v, want %v", c.value, got, c.want)
		}
	}
}
