// Package sign signs messages as Standard Webhooks 1.0.0 says, version v1:
// HMAC-SHA256 over "<id>.<timestamp>.<body>".
//
// It is pure: the caller gives the instant of the attempt. A [Key] never
// prints.
package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tocsin-dev/tocsin/internal/secret"
)

// The headers of Standard Webhooks.
const (
	// HeaderID carries the message's id, the same in every attempt.
	HeaderID = "webhook-id"
	// HeaderTimestamp carries the instant of the attempt in Unix seconds.
	HeaderTimestamp = "webhook-timestamp"
	// HeaderSignature carries the signatures, separated by spaces.
	HeaderSignature = "webhook-signature"
)

const (
	// secretPrefix begins every symmetric secret.
	secretPrefix = "whsec_"
	// minKey and maxKey are the bounds of the specification, in bytes.
	minKey, maxKey = 24, 64
)

// Key is a symmetric key. Its zero value signs nothing.
type Key struct{ raw []byte }

// ParseKey reads a secret as it is written down: "whsec_" and the base64 of 24
// to 64 bytes. Its errors do not show the secret.
func ParseKey(s secret.String) (Key, error) {
	text, ok := strings.CutPrefix(s.Reveal(), secretPrefix)
	if !ok {
		return Key{}, errors.New("a signing secret begins with whsec_")
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return Key{}, errors.New("a signing secret is whsec_ and standard base64 with padding")
	}
	if len(raw) < minKey || len(raw) > maxKey {
		return Key{}, fmt.Errorf("a signing secret holds %d to %d bytes, this one %d", minKey, maxKey, len(raw))
	}
	return Key{raw: raw}, nil
}

// Set reports whether there is a key.
func (k Key) Set() bool { return len(k.raw) > 0 }

// String hides the key from fmt.
func (k Key) String() string { return secret.String(k.raw).String() }

// GoString hides the key from fmt's %#v.
func (k Key) GoString() string { return k.String() }

// Signature returns the value of the header webhook-signature for one attempt at
// the instant at to send body under id.
func (k Key) Signature(id string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, k.raw)
	_, _ = fmt.Fprintf(mac, "%s.%d.", id, at.Unix())
	_, _ = mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Headers returns the headers of Standard Webhooks for one attempt at the
// instant at. Without a key that is all but the signature.
func (k Key) Headers(id string, at time.Time, body []byte) map[string]string {
	h := map[string]string{HeaderID: id, HeaderTimestamp: strconv.FormatInt(at.Unix(), 10)}
	if k.Set() {
		h[HeaderSignature] = k.Signature(id, at, body)
	}
	return h
}
