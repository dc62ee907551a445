package ingest_test

import (
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/services/collector/internal/ingest"
)

func TestATokenBelongsToOneEndpoint(t *testing.T) {
	d := ingest.NewDirectory("default", "secret")
	for _, id := range []string{"a", "b", "a/b"} {
		d.Put(ingest.Endpoint{ID: id, Name: "name of " + id, Type: "queue"})
	}
	for _, e := range d.List() {
		token := strings.TrimPrefix(e.WebhookPath, "/webhook/")
		if id, ok := d.Lookup(token); !ok || id != e.ID || len(token) != 43 {
			t.Errorf("token %q of %s finds %q, %v", token, e.ID, id, ok)
		}
	}
	if got := d.List(); len(got) != 3 || got[0].ID != "a" || got[1].ID != "a/b" {
		t.Errorf("list is %v", got)
	}
}

func TestATokenIsTheSameAfterARestartAndAnotherElsewhere(t *testing.T) {
	token := ingest.NewDirectory("default", "secret").Token("a")
	if again := ingest.NewDirectory("default", "secret").Token("a"); again != token {
		t.Errorf("after a restart it is %q, was %q", again, token)
	}
	for name, other := range map[string]string{
		"another endpoint": ingest.NewDirectory("default", "secret").Token("b"),
		"another account":  ingest.NewDirectory("second", "secret").Token("a"),
		"another secret":   ingest.NewDirectory("default", "secret2").Token("a"),
	} {
		if other == token {
			t.Errorf("%s has the same token", name)
		}
	}
}

func TestWhatIsNoTokenFindsNothing(t *testing.T) {
	d := ingest.NewDirectory("default", "secret")
	d.Put(ingest.Endpoint{ID: "a"})
	token := d.Token("a")
	d.Put(ingest.Endpoint{ID: "gone"})
	d.Remove("gone")
	for name, guess := range map[string]string{
		"nothing":                     "",
		"a token but for its end":     token[:len(token)-1] + "_",
		"more than a token":           token + "A",
		"the token of a removed one":  d.Token("gone"),
		"the token of an unknown one": d.Token("never seen"),
	} {
		if id, ok := d.Lookup(guess); ok {
			t.Errorf("%s finds %q", name, id)
		}
	}
	d.Put(ingest.Endpoint{ID: "a", Name: "renamed"})
	if id, ok := d.Lookup(token); !ok || id != "a" || d.List()[0].Name != "renamed" {
		t.Errorf("after a new name the token finds %q, %v", id, ok)
	}
}
