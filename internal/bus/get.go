package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Delivery is a stored message.
type Delivery struct {
	// Subject is the stored one, after the stream's transform.
	Subject string
	// ID is the message's id, or empty.
	ID string
	// Data is the payload.
	Data []byte
	// Seq is the sequence in the stream.
	Seq uint64
	// Time is when the leader stored it, by that machine's clock, which may
	// step back or leap.
	Time time.Time
	// Pending is how many messages of the same read follow, as far as the server
	// knew. Last and At leave it 0.
	Pending uint64
}

// Last returns the newest message of subject. ok is false when there is none.
// It is answered by the stream's leader, never by a direct get, and asks again
// until ctx ends when the server cannot be reached.
func (c *Conn) Last(ctx context.Context, stream, subject string) (d Delivery, ok bool, err error) {
	m, ok, err := c.stored(ctx, stream, msgRequest{LastBySubject: subject})
	if err != nil {
		return Delivery{}, false, fmt.Errorf("read last message of %s: %w", subject, err)
	}
	return m.delivery(), ok, nil
}

// At returns the message with the sequence seq. ok is false when there is
// none, or none any more. It is answered like Last.
func (c *Conn) At(ctx context.Context, stream string, seq uint64) (d Delivery, ok bool, err error) {
	m, ok, err := c.stored(ctx, stream, msgRequest{Seq: seq})
	if err != nil {
		return Delivery{}, false, fmt.Errorf("read message %d of %s: %w", seq, stream, err)
	}
	return m.delivery(), ok, nil
}

// msgRequest is the request of STREAM.MSG.GET.
type msgRequest struct {
	Seq           uint64 `json:"seq,omitempty"`
	LastBySubject string `json:"last_by_subj,omitempty"`
}

// storedMsg is a message in the answer of STREAM.MSG.GET.
type storedMsg struct {
	Subject string    `json:"subject"`
	Seq     uint64    `json:"seq"`
	Header  []byte    `json:"hdrs"`
	Data    []byte    `json:"data"`
	Time    time.Time `json:"time"`

	header nats.Header
}

func (m storedMsg) delivery() Delivery {
	return Delivery{
		Subject: m.Subject, ID: m.header.Get(jetstream.MsgIDHeader), Data: m.Data,
		Seq: m.Seq, Time: m.Time,
	}
}

// stored asks the leader for one message. nats.go would use a direct get, which
// a follower may answer, wherever the stream allows it.
func (c *Conn) stored(ctx context.Context, stream string, r msgRequest) (m storedMsg, ok bool, err error) {
	body, err := json.Marshal(r)
	if err != nil {
		return storedMsg{}, false, err
	}
	err = c.persist(ctx, func(ctx context.Context) error {
		resp, err := c.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, body)
		if err != nil {
			return err
		}
		// Of this attempt alone: a refusal must not outlive the answer that it is in.
		var answer struct {
			Error   *jetstream.APIError `json:"error"`
			Message storedMsg           `json:"message"`
		}
		if err := json.Unmarshal(resp.Data, &answer); err != nil {
			return fmt.Errorf("decode answer: %w", err)
		}
		if answer.Error != nil {
			return answer.Error
		}
		m = answer.Message
		return nil
	})
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return storedMsg{}, false, nil
	case err != nil:
		return storedMsg{}, false, err
	}
	if len(m.Header) > 0 {
		if m.header, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			return storedMsg{}, false, fmt.Errorf("decode headers of message %d: %w", m.Seq, err)
		}
	}
	return m, true, nil
}
