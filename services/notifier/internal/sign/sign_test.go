package sign

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tocsin-dev/tocsin/internal/secret"
)

// The published example of Standard Webhooks.
const (
	exampleSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	exampleID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	exampleTimestamp = 1614265330
	exampleBody      = `{"test": 2432232314}`
	exampleSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func key(t *testing.T, s string) Key {
	t.Helper()
	k, err := ParseKey(secret.String(s))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSignatureOfThePublishedExample(t *testing.T) {
	got := key(t, exampleSecret).Signature(exampleID, time.Unix(exampleTimestamp, 0), []byte(exampleBody))
	if got != exampleSignature {
		t.Errorf("signature %s, want %s", got, exampleSignature)
	}
}

func TestAnIndependentVerifierAcceptsIt(t *testing.T) {
	verifier, err := standardwebhooks.NewWebhook(exampleSecret)
	if err != nil {
		t.Fatal(err)
	}
	k := key(t, exampleSecret)
	for _, body := range []string{"{}\n", `{"type":"alert.firing"}`, strings.Repeat("ü", 20_000)} {
		h := http.Header{}
		for name, value := range k.Headers("msg_1", time.Now(), []byte(body)) {
			h.Set(name, value)
		}
		if err := verifier.Verify([]byte(body), h); err != nil {
			t.Errorf("body of %d bytes: %v", len(body), err)
		}
		if err := verifier.Verify([]byte(body+" "), h); err == nil {
			t.Errorf("body of %d bytes: a changed body was accepted", len(body))
		}
	}
}

func TestWithoutAKeyThereIsNoSignature(t *testing.T) {
	got := Key{}.Headers("msg_1", time.Unix(7, 0), []byte("{}"))
	if diff := cmp.Diff(map[string]string{HeaderID: "msg_1", HeaderTimestamp: "7"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseKey(t *testing.T) {
	encode := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for _, c := range []struct {
		name, secret string
		ok           bool
	}{
		{"24 bytes are enough", encode(24), true},
		{"64 bytes are allowed", encode(64), true},
		{"an empty secret is refused", "whsec_", false},
		{"nothing is refused", "", false},
		{"23 bytes are too few", encode(23), false},
		{"65 bytes are too many", encode(65), false},
		{"the prefix is needed", strings.TrimPrefix(encode(32), "whsec_"), false},
		{"an asymmetric key is refused", "whsk_" + base64.StdEncoding.EncodeToString(make([]byte, 32)), false},
		{"base64 without padding is refused", strings.TrimRight(encode(25), "="), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := ParseKey(secret.String(c.secret))
			if (err == nil) != c.ok {
				t.Fatalf("error %v, want ok %t", err, c.ok)
			}
			if k.Set() != c.ok {
				t.Errorf("key set: %t, want %t", k.Set(), c.ok)
			}
			if err != nil && len(c.secret) > 10 && strings.Contains(err.Error(), c.secret[6:]) {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func TestAKeyDoesNotPrint(t *testing.T) {
	k := key(t, exampleSecret)
	for _, shown := range []string{fmt.Sprintf("%v", k), fmt.Sprintf("%+v", k), fmt.Sprintf("%#v", k), fmt.Sprintf("%x", k), k.String()} {
		if strings.Contains(shown, "MfKQ") || strings.Contains(shown, string(k.raw)) {
			t.Errorf("the key prints as %s", shown)
		}
	}
}
