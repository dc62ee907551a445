package runpod

import (
	"errors"
	"net/url"
	"strings"
)

// CheckURL reports what keeps a text from being the base URL of an API.
func CheckURL(raw string) error {
	_, err := parseBase(raw)
	return err
}

// parseBase accepts an http or https URL with a host and a path, nothing else.
func parseBase(raw string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimRight(raw, "/"))
	switch {
	case err != nil:
		return nil, errors.New("not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("must begin with https:// or http://")
	case u.Host == "":
		return nil, errors.New("has no host")
	case u.User != nil:
		return nil, errors.New("must not hold a user or password")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("must not have a query or fragment")
	}
	return u, nil
}

// HealthURL returns the URL that [Client.Health] reads for e. The URL that the
// inventory names is used only on the scheme and host of the configured
// ServerlessURL, because the key goes with the call: an answer must not be able
// to send it to a host that the operator did not configure. And only if it names
// the endpoint, so that no other's health is taken for its own. Otherwise the URL
// is built from ServerlessURL and the second result is false.
func (c *Client) HealthURL(e Endpoint) (target string, fromInventory bool) {
	u, err := url.Parse(e.HealthURL)
	if err == nil && e.HealthURL != "" && u.Scheme == c.serverless.Scheme && u.Host == c.serverless.Host &&
		u.User == nil && u.RawQuery == "" && u.Fragment == "" && strings.Contains(u.EscapedPath(), "/"+url.PathEscape(e.ID)+"/") {
		return u.String(), true
	}
	return join(c.serverless, e.ID, "health"), false
}

func (c *Client) restURL(path ...string) string { return join(c.rest, path...) }

// join appends path elements to base, each escaped as one element.
func join(base *url.URL, path ...string) string {
	var b strings.Builder
	b.WriteString(base.String())
	for _, p := range path {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}

// maxIDBytes bounds an id. RunPod's have up to 45 bytes.
const maxIDBytes = 256

// checkID refuses ids that would change which path is called.
func checkID(op string, ids ...string) error {
	for _, id := range ids {
		if id == "" || id == "." || id == ".." || len(id) > maxIDBytes {
			return &Error{Op: op, Kind: NotFound, Detail: "no such id is possible"}
		}
	}
	return nil
}
