package ingest

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"slices"
	"sync"

	"github.com/tocsin-dev/tocsin/internal/secret"
)

// Endpoint is what the directory tells of an endpoint.
type Endpoint struct {
	// ID is RunPod's id.
	ID string `json:"endpoint_id"`
	// Name is RunPod's name.
	Name string `json:"name"`
	// Type is queue, load_balancer or unknown.
	Type string `json:"type"`
	// WebhookPath is where RunPod's webhooks for its jobs go. It is a secret.
	WebhookPath string `json:"webhook_path"`
}

// Directory knows the webhook token of each endpoint. Tokens are derived from
// one secret, so that none is stored and all survive a restart. It is safe for
// concurrent use.
type Directory struct {
	account string
	secret  secret.String

	mu        sync.RWMutex
	endpoints map[string]Endpoint // guarded by mu, by id
	byHash    map[[sha256.Size]byte]entry
}

type entry struct {
	id    string
	token string
}

// NewDirectory returns a directory of no endpoints of an account.
func NewDirectory(account string, key secret.String) *Directory {
	return &Directory{
		account: account, secret: key,
		endpoints: map[string]Endpoint{}, byHash: map[[sha256.Size]byte]entry{},
	}
}

// Token returns the webhook token of an endpoint: 43 characters that nobody can
// guess without the secret.
func (d *Directory) Token(endpoint string) string {
	mac := hmac.New(sha256.New, []byte(d.secret.Reveal()))
	_, _ = mac.Write([]byte(d.account + "/" + endpoint)) // an account has no slash; never fails
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Put adds an endpoint, or changes its name and type. Its path is filled in.
func (d *Directory) Put(e Endpoint) {
	token := d.Token(e.ID)
	e.WebhookPath = "/webhook/" + token
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endpoints[e.ID] = e
	d.byHash[sha256.Sum256([]byte(token))] = entry{id: e.ID, token: token}
}

// Remove takes an endpoint out; its token is not valid any more.
func (d *Directory) Remove(id string) {
	token := d.Token(id)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.endpoints, id)
	delete(d.byHash, sha256.Sum256([]byte(token)))
}

// Lookup returns the endpoint that a token belongs to. It takes the same time
// however much of a wrong token is right: a guess meets the tokens by hash
// alone, and is compared with at most one.
func (d *Directory) Lookup(token string) (id string, ok bool) {
	d.mu.RLock()
	found := d.byHash[sha256.Sum256([]byte(token))]
	d.mu.RUnlock()
	if subtle.ConstantTimeCompare([]byte(found.token), []byte(token)) != 1 || found.id == "" {
		return "", false
	}
	return found.id, true
}

// List returns all endpoints by id.
func (d *Directory) List() []Endpoint {
	d.mu.RLock()
	defer d.mu.RUnlock()
	list := make([]Endpoint, 0, len(d.endpoints))
	for _, e := range d.endpoints {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	return list
}
