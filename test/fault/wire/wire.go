// Package wire keeps an account of what a NATS server acknowledged: it hears what
// clients and server say to each other, and notes which messages clients published,
// and at which place of which stream the server said that it has them. It shares
// no code with the clients.
package wire

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/tocsin-dev/tocsin/internal/servertest"
)

// Message is what a client publishes.
type Message struct {
	// Subject is what it was published to.
	Subject string
	// ID is its Nats-Msg-Id, or empty.
	ID string
	// Sum is the hash of its payload.
	Sum [sha256.Size]byte
}

// Place is where a message is.
type Place struct {
	Stream string
	Seq    uint64
}

// Acknowledged is a message whose publisher was told that it is stored.
type Acknowledged struct {
	Message
	Place
	// Duplicate is true when the server said that it had the id before, there.
	Duplicate bool
}

// Account is what was heard on connections. It is safe for concurrent use.
type Account struct {
	root string // begins the subjects that matter

	mu        sync.Mutex
	published map[Message]int // guarded by mu; how often each was
	acked     []Acknowledged  // guarded by mu; by the time of their answers
	losses    int             // guarded by mu; how often a server lost data
	lost      map[string]int  // guarded by mu; losses at the last one of each stream
}

// New returns an account of nothing. Only messages whose subjects begin with root
// are noted.
func New(root string) *Account {
	return &Account{root: root, published: map[Message]int{}, lost: map[string]int{}}
}

// Acknowledged lists what was acknowledged so far and not lost since.
func (a *Account) Acknowledged() []Acknowledged {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.acked)
}

// Published returns how often each message was sent to the server so far, whatever
// became of it.
func (a *Account) Published() map[Message]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.published)
}

// Mark returns how much was acknowledged so far, for [Account.Lose].
func (a *Account) Mark() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.acked)
}

// Lose notes that the server is dead and lost what it stored in some streams after
// a mark; 0 means all of it. What is said from now on over the connections that
// there were is of the time before, too.
func (a *Account) Lose(streams []string, mark int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	kept := a.acked[:mark:mark]
	for _, m := range a.acked[mark:] {
		if !slices.Contains(streams, m.Stream) {
			kept = append(kept, m)
		}
	}
	a.acked = kept
	a.losses++
	for _, name := range streams {
		a.lost[name] = a.losses
	}
}

// Listen returns what hears a new connection.
func (a *Account) Listen() servertest.Tap {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := &conn{account: a, since: a.losses, waiting: map[string]request{}, batches: map[string][]Message{}}
	var asked, answered stream
	return func(answer bool, data []byte) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if answer {
			answered.take(data, c.answered)
		} else {
			asked.take(data, c.asked)
		}
	}
}

// conn is one connection. Its account's mu guards it.
type conn struct {
	account *Account
	since   int                  // how many losses there had been
	waiting map[string]request   // published, by the subject of the answer
	batches map[string][]Message // parts of atomic batches, by the batch
}

// request is a publication that waits for its answer.
type request struct {
	message Message
	batch   string // its atomic batch, if it is of one
}

// asked notes what a client publishes.
func (c *conn) asked(op string, args []string, header, body []byte) {
	if op != "PUB" && op != "HPUB" || len(args) == 0 || !strings.HasPrefix(args[0], c.account.root) {
		return
	}
	m := Message{Subject: args[0], ID: headerOf(header, "Nats-Msg-Id"), Sum: sha256.Sum256(body)}
	c.account.published[m]++
	batch := headerOf(header, "Nats-Batch-Id")
	if batch != "" {
		c.batches[batch] = append(c.batches[batch], m)
	}
	if len(args) > 1 {
		c.waiting[args[1]] = request{m, batch}
	}
}

// answered notes what the server says of it.
func (c *conn) answered(op string, args []string, _, body []byte) {
	if op != "MSG" && op != "HMSG" || len(args) == 0 {
		return
	}
	r, ok := c.waiting[args[0]]
	if !ok {
		return
	}
	delete(c.waiting, args[0])
	var ack struct {
		Error     json.RawMessage `json:"error"`
		Stream    string          `json:"stream"`
		Seq       uint64          `json:"seq"`
		Duplicate bool            `json:"duplicate"`
		Count     uint64          `json:"count"`
	}
	if err := json.Unmarshal(body, &ack); err != nil || ack.Error != nil || ack.Stream == "" || ack.Seq == 0 {
		return // refused; or it is the empty answer to a part of a batch
	}
	if c.since < c.account.lost[ack.Stream] {
		return // it is lost since
	}
	messages := []Message{r.message}
	if r.batch != "" {
		messages = c.batches[r.batch]
		delete(c.batches, r.batch)
	}
	for i, m := range messages {
		// A batch is told by its last message.
		place := Place{ack.Stream, ack.Seq - uint64(len(messages)-1-i)}
		c.account.acked = append(c.account.acked, Acknowledged{m, place, ack.Duplicate})
	}
}
