package collector

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/secret"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/poll"
)

// storeTime bounds the wait of a registration for the log.
const storeTime = 5 * time.Second

// webhookSecretKey is where a secret that was made is kept.
const webhookSecretKey = "collector.webhook_secret"

// webhookSecret returns the configured secret, else the one that is kept, else
// a new one that is kept from now on.
func webhookSecret(ctx context.Context, meta *bus.Bucket, configured secret.String) (secret.String, error) {
	if configured.Set() {
		return configured, nil
	}
	for {
		kept, _, ok, err := meta.Get(ctx, webhookSecretKey)
		if err != nil {
			return "", fmt.Errorf("read the webhook secret: %w", err)
		}
		if ok && len(kept) > 0 {
			return secret.String(kept), nil
		}
		fresh := rand.Text()
		_, err = meta.Create(ctx, webhookSecretKey, []byte(fresh))
		switch {
		case err == nil:
			return secret.String(fresh), nil
		case !errors.Is(err, bus.ErrExists) && !errors.Is(err, bus.ErrUnknownOutcome):
			return "", fmt.Errorf("keep a webhook secret: %w", err)
		}
	}
}

// announce tells every partition that a collector begins to observe.
func announce(ctx context.Context, conn *bus.Conn) error {
	host, _ := os.Hostname() // a name for people; none is as good
	data, err := event.Marshal(&eventv1.Event{
		Source: eventv1.Source_SOURCE_TOCSIN,
		Fact: &eventv1.Event_CollectorStarted{CollectorStarted: &eventv1.CollectorStarted{
			Collector: fmt.Sprintf("%s/%d", host, os.Getpid()),
		}},
	})
	if err != nil {
		return err
	}
	for p := range event.Partitions {
		subject := event.PartitionSubject(p, event.KindCollectorStarted)
		if _, err := conn.Publish(ctx, bus.Message{Subject: subject, Data: data}); err != nil {
			return fmt.Errorf("announce the start: %w", err)
		}
	}
	return nil
}

// store stores an event before it returns.
func store(ctx context.Context, conn *bus.Conn, e *eventv1.Event) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	data, err := event.Marshal(e)
	if err != nil {
		return err
	}
	_, err = conn.Publish(ctx, bus.Message{Subject: event.Subject(event.Kind(e), e.GetTarget()), ID: e.GetId(), Data: data})
	return err
}

// What a refused key means, in words for who made it.
const (
	keyIsWrong = "RunPod refused the API key (401): it is wrong or was revoked; make a new one in RunPod's console under Settings, API Keys"
	keyLacks   = "RunPod accepted the API key but it may not list %s (403): give it read access to them in RunPod's console under Settings, API Keys"
)

// checkKey takes how the first lists went. A key that RunPod refuses is an error
// for an account that was never seen before (known is false), because a person
// sits before it. Otherwise it is told like any other outage, by the events of
// the polls, since the rest of the system must run on.
func checkKey(log *slog.Logger, known bool, endpoints, pods *poll.Failure) error {
	refused := refusal(endpoints, pods)
	switch {
	case refused != nil && !known:
		return proc.Usage(refused)
	case refused != nil:
		log.Error("key refused; polling on in case that it works again", "err", refused)
		return nil
	}
	for name, f := range map[string]*poll.Failure{"serverless endpoints": endpoints, "pods": pods} {
		switch {
		case f == nil:
		case f.Refused():
			log.Warn("a part of the account is not watched", "err", fmt.Errorf(keyLacks, name))
		default:
			log.Warn("RunPod cannot be read at the start; trying on", "list", name, "detail", f.Detail)
		}
	}
	return nil
}

// refusal returns why the key is of no use at all, nil when it is of some.
func refusal(endpoints, pods *poll.Failure) error {
	const unauthorized = eventv1.PollFailureReason_POLL_FAILURE_REASON_UNAUTHORIZED
	switch {
	case endpoints != nil && endpoints.Reason == unauthorized, pods != nil && pods.Reason == unauthorized:
		return errors.New(keyIsWrong)
	case endpoints != nil && endpoints.Refused() && pods != nil && pods.Refused():
		return fmt.Errorf(keyLacks, "serverless endpoints and pods")
	default:
		return nil
	}
}

// listeners are the ports of a collector.
type listeners struct{ ingest, http, grpc net.Listener }

func listen(cfg Config) (l listeners, err error) {
	for _, p := range []struct {
		to            *net.Listener
		name, address string
	}{
		{&l.ingest, "collector.ingest_address", cfg.IngestAddress},
		{&l.http, "collector.http_address", cfg.HTTPAddress},
		{&l.grpc, "collector.grpc_address", cfg.GRPCAddress},
	} {
		if *p.to, err = proc.Listen(p.name, p.address); err != nil {
			l.close()
			return l, err
		}
	}
	return l, nil
}

// close closes what no server has closed yet.
func (l listeners) close() {
	for _, ln := range []net.Listener{l.ingest, l.http, l.grpc} {
		if ln != nil {
			_ = ln.Close()
		}
	}
}

func (l listeners) addresses() Addresses {
	return Addresses{Ingest: l.ingest.Addr(), HTTP: l.http.Addr(), GRPC: l.grpc.Addr()}
}
