package query

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/fault"
)

const (
	defaultPage = 100
	maxPage     = 1000
	// pageBytes bounds an answer, below the 4 MiB that callers take. A page ends
	// early when it is reached.
	pageBytes = 3 << 20
	// questionSize is how much of the hash of a question is in its page tokens:
	// enough to notice a token that was given to another question.
	questionSize = 8
)

// page is a place in a list and how much of it is asked for.
type page struct {
	question string // hash of what was asked, but for the page
	after    string // the last key of the page before; empty at the first
	size     int
}

// paged is a request with a page.
type paged interface {
	proto.Message
	GetPageSize() int32
	GetPageToken() string
}

// newPage reads the page of a request. question is what the page is of.
func newPage(request paged, question ...string) (page, error) {
	sum := sha256.Sum256([]byte(strings.Join(question, "\x00")))
	p := page{question: string(sum[:questionSize]), size: int(request.GetPageSize())}
	switch {
	case p.size < 0 || p.size > maxPage:
		return page{}, fault.Newf(fault.Invalid, "page_size: %d is not between 0 and %d", p.size, maxPage)
	case p.size == 0:
		p.size = defaultPage
	}
	token := request.GetPageToken()
	if token == "" {
		return p, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) <= questionSize {
		return page{}, fault.New(fault.Invalid, "page_token: it is not one that this service gave")
	}
	if string(raw[:questionSize]) != p.question {
		return page{}, fault.New(fault.Invalid, "page_token: it belongs to a request with other filters")
	}
	p.after = string(raw[questionSize:])
	return p, nil
}

// token asks for what follows the item with this key.
func (p page) token(last string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(p.question + last))
}

// filler collects the items of a page, in the order of their keys.
type filler struct {
	page  page
	count int
	bytes int
	last  string
	next  string // the token of the next page
}

// add tells whether an item still belongs to the page.
func (f *filler) add(key string, item proto.Message) bool {
	size := proto.Size(item)
	if f.count > 0 && (f.count == f.page.size || f.bytes+size > pageBytes) {
		f.next = f.page.token(f.last)
		return false
	}
	f.count, f.bytes, f.last = f.count+1, f.bytes+size, key
	return true
}

// limits says what is too much of a request's lists.
func atMost(name string, n, limit int) error {
	if n > limit {
		return fault.Wrap(fault.Invalid, fmt.Errorf("%s: %d are given, %d are allowed", name, n, limit))
	}
	return nil
}
