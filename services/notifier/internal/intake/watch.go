package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/alertmanager/matcher/compat"
	"github.com/prometheus/alertmanager/pkg/labels"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/fault"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
)

// maxMatchers bounds the matchers of one watch.
const maxMatchers = 50

// watchAhead bounds the messages of up to 512 KiB that a watch holds for a reader
// that does not keep up.
const watchAhead = 16

// ReasonTokenTooOld is the reason of the error for a resume token whose place
// in the stream is not kept any more.
const ReasonTokenTooOld = "RESUME_TOKEN_TOO_OLD"

// Watched is the part of the bus that a watch needs.
type Watched interface {
	// StreamState tells what a stream holds.
	StreamState(ctx context.Context, name string) (bus.StreamState, error)
	// Read calls handle for each message.
	Read(ctx context.Context, o bus.ReadOptions, handle func(bus.Delivery) error) error
}

// parseMatcher reads a matcher as Alertmanager does unless told otherwise.
var parseMatcher = compat.FallbackMatcherParser(slog.New(slog.DiscardHandler))

// place is where in ALERTS a watcher is: after a transition of a message. The
// instants tell a stream that was made anew, or was cut and grew again.
type place struct {
	created time.Time // of the stream
	seq     uint64
	stored  time.Time // of the message
	index   int       // -1: before the first transition of the message; whole: after its last
}

// whole is the index after the last transition of a message, which has at most
// 500: a watcher that is there misses nothing when the message ages out.
const whole = 1 << 20

// Watch sends transitions as they are stored, straight from the stream and at
// the pace of send, which may block. It ends with send's error or ctx's.
func Watch(ctx context.Context, log *slog.Logger, src Watched, req *notifyv1.WatchAlertsRequest, send func(*notifyv1.WatchAlertsResponse) error) error {
	matchers, err := parseMatchers(req.GetMatchers())
	if err != nil {
		return err
	}
	state, err := src.StreamState(ctx, bus.AlertsStream)
	if err != nil {
		return fault.Wrap(fault.Unavailable, fmt.Errorf("watch alerts: %w", err))
	}
	from, err := resume(req.GetResumeToken(), state)
	if err != nil {
		return err
	}
	var sendErr error
	began := false
	o := bus.ReadOptions{Stream: bus.AlertsStream, From: from.seq, Prefetch: watchAhead}
	if from.index >= 0 {
		o.Known = []bus.Mark{{Seq: from.seq, Time: from.stored}}
	}
	err = src.Read(ctx, o, func(d bus.Delivery) error {
		began = true
		var b alertv1.TransitionBatch
		if err := proto.Unmarshal(d.Data, &b); err != nil {
			log.ErrorContext(ctx, "an alert message cannot be read and is skipped", "seq", d.Seq, "err", err)
			return nil
		}
		for i, tr := range b.GetTransitions() {
			if d.Seq == from.seq && i <= from.index || !wanted(tr, req.GetIncludeRenewed(), matchers) {
				continue
			}
			at := place{created: state.Created, seq: d.Seq, stored: d.Time, index: i}
			if i == len(b.GetTransitions())-1 {
				at.index = whole
			}
			sendErr = send(&notifyv1.WatchAlertsResponse{ResumeToken: at.String(), Transition: tr})
			if sendErr != nil {
				return sendErr
			}
		}
		return nil
	})
	switch {
	case sendErr != nil:
		return sendErr
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !began && from.index >= 0 && errors.Is(err, bus.ErrStreamReplaced):
		return errOtherAlerts
	}
	return fault.Wrap(fault.Unavailable, fmt.Errorf("watch alerts: %w", err))
}

// errOtherAlerts refuses a token of a stream that is no more.
var errOtherAlerts = fault.New(fault.Invalid, "resume_token: it belongs to another log of alerts; begin without one")

func wanted(tr *alertv1.Transition, renewed bool, matchers labels.Matchers) bool {
	if tr.GetKind() == alertv1.TransitionKind_TRANSITION_KIND_RENEWED && !renewed {
		return false
	}
	set := make(model.LabelSet, len(tr.GetAlert().GetLabels()))
	for name, value := range tr.GetAlert().GetLabels() {
		set[model.LabelName(name)] = model.LabelValue(value)
	}
	return matchers.Matches(set)
}

func parseMatchers(texts []string) (labels.Matchers, error) {
	if len(texts) > maxMatchers {
		return nil, fault.Newf(fault.Invalid, "%d matchers, want at most %d", len(texts), maxMatchers)
	}
	var matchers labels.Matchers
	for i, text := range texts {
		m, err := parseMatcher(text, "watch")
		if err != nil {
			return nil, fault.Newf(fault.Invalid, "matchers[%d]: %w", i, err)
		}
		matchers = append(matchers, m)
	}
	return matchers, nil
}

// String writes a place as a resume token.
func (p place) String() string {
	return strconv.FormatInt(p.created.UnixNano(), 36) + "-" + strconv.FormatUint(p.seq, 36) + "-" +
		strconv.FormatInt(p.stored.UnixNano(), 36) + "-" + strconv.Itoa(p.index)
}

// resume returns where a watch begins: after what the token names, or after
// what is stored now.
func resume(token string, state bus.StreamState) (place, error) {
	if token == "" {
		return place{seq: state.LastSeq + 1, index: -1}, nil
	}
	p, err := parsePlace(token)
	if err != nil {
		return place{}, fault.New(fault.Invalid, "resume_token: not one of ours")
	}
	switch {
	case !p.created.Equal(state.Created), p.seq > state.LastSeq:
		return place{}, errOtherAlerts
	case p.seq+1 < state.FirstSeq, p.seq < state.FirstSeq && p.index < whole:
		return place{}, fault.WithReason(ReasonTokenTooOld,
			fault.New(fault.Permanent, "resume_token: what follows it is not kept any more; begin without one"))
	}
	return p, nil
}

func parsePlace(token string) (place, error) {
	parts := strings.Split(token, "-")
	if len(parts) != 4 {
		return place{}, errors.New("not four parts")
	}
	created, err1 := strconv.ParseInt(parts[0], 36, 64)
	seq, err2 := strconv.ParseUint(parts[1], 36, 64)
	stored, err3 := strconv.ParseInt(parts[2], 36, 64)
	index, err4 := strconv.Atoi(parts[3])
	if err := errors.Join(err1, err2, err3, err4); err != nil || index < 0 {
		return place{}, errors.New("not numbers")
	}
	return place{created: time.Unix(0, created), seq: seq, stored: time.Unix(0, stored), index: index}, nil
}
