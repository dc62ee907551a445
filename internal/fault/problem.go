package fault

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
)

// Problem is the body of a refused HTTP request, after RFC 9457.
type Problem struct {
	// Type is "about:blank": the status and the reason say what it is.
	Type string `json:"type"`
	// Title is the status in words.
	Title string `json:"title"`
	// Status is the HTTP status code.
	Status int `json:"status"`
	// Detail is a sentence for people about this very request.
	Detail string `json:"detail"`
	// Reason is a constant for machines, e.g. "NOT_FOUND".
	Reason string `json:"reason"`
}

// ProblemOf translates err to what the outside may learn.
func ProblemOf(err error) Problem {
	k := Of(err)
	title := http.StatusText(k.Status())
	if title == "" {
		title = k.Error()
	}
	return Problem{Type: "about:blank", Title: title, Status: k.Status(), Detail: visible(err), Reason: reasonOf(err)}
}

// WriteProblem answers a request with err as application/problem+json. It sets
// WWW-Authenticate on 401 and Retry-After, in whole seconds rounded up, where
// err knows a wait. Headers that the caller set before are kept.
func WriteProblem(w http.ResponseWriter, err error) {
	p := ProblemOf(err)
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if p.Status == http.StatusUnauthorized && h.Get("WWW-Authenticate") == "" {
		h.Set("WWW-Authenticate", `Bearer realm="tocsin"`)
	}
	if wait := retryAfter(err); wait > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	w.WriteHeader(p.Status)
	// An error here is a caller who went away; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(p)
}
