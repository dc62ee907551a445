package deploy

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/secret"
	"github.com/tocsin-dev/tocsin/test/internal/process"
)

// TestTheServicesMayDoWhatTheyNeed runs the demo of compose.yaml as processes,
// kills each service, stops each as a person would, takes Redis's data away, and
// looks whether NATS or Redis refused anything.
func TestTheServicesMayDoWhatTheyNeed(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	key, signing := s.secrets+"/runpod_api_key", s.secrets+"/receivers/webhook_secret"
	simulator := process.Start(t, nil, "simulate", "--address", "127.0.0.1:0", "--speed", "60", "--key-file", key)
	account := shownURL(simulator.WaitFor(0, "runpod.rest_url"))
	receiver := process.Start(t, nil, "receive", "--address", "127.0.0.1:0", "--json", "--secret-file", signing)
	hooks := shownURL(receiver.WaitFor(0, "Receives webhooks"))
	s.configure(t, "demo", "http://simulator:8090", account, "http://receiver:8095", hooks)

	services := []string{"notifier", "alerter", "collector"}
	running := map[string]*process.Process{}
	for _, name := range services {
		running[name] = s.start(t, name, "demo")
		if said := s.health(t, name, "demo"); said != "" {
			t.Errorf("the health check of the %s says %s", name, said)
		}
	}
	for _, alert := range []string{"EndpointDisabled", "CrashLoop", "NoCapacity", "RunPodAPIDown", "RunPodKeyRejected"} {
		receiver.WaitFor(0, `"alertname":"`+alert+`"`, `"status":"firing"`)
		receiver.WaitFor(0, `"alertname":"`+alert+`"`, `"status":"resolved"`)
	}
	receiver.WaitFor(0, `"alertname":"LowGPUUtilization"`, `"status":"firing"`)

	for _, name := range services {
		running[name].Kill()
		running[name] = s.start(t, name, "demo")
	}
	for _, name := range services { // at a clean stop the alerter writes its snapshots, and reads them at the start
		if code := running[name].Stop(); code != 0 {
			t.Errorf("the %s ended with code %d, want 0", name, code)
		}
	}
	if said := s.health(t, "alerter", "demo"); !strings.Contains(said, "connection refused") {
		t.Errorf("the health check of an alerter that is down says %q", said)
	}
	denied := s.denied(t)
	s.redis.Kill()
	s.startRedis(t)
	s.configure(t, "demo")
	for _, name := range services {
		running[name] = s.start(t, name, "demo")
	}
	line := receiver.Lines()
	receiver.WaitFor(line, `"alertname":"EndpointDisabled"`, `"status":"firing"`)
	receiver.WaitFor(line, `"alertname":"EndpointDisabled"`, `"status":"resolved"`)
	for _, name := range services {
		if code := running[name].Stop(); code != 0 {
			t.Errorf("the %s ended with code %d, want 0", name, code)
		}
	}

	for line := range strings.SplitSeq(s.nats.Output(), "\n") {
		if strings.Contains(line, "Violation") {
			t.Errorf("NATS refused: %s", line)
		}
	}
	for _, command := range append(denied, s.denied(t)...) {
		// The alerter asks for the eviction policy, and can do without an answer:
		// who may read one setting may read all.
		if command != "config|get" {
			t.Errorf("Redis refused the command %q", command)
		}
	}
}

// denied lists the commands that Redis refused.
func (s *stack) denied(t *testing.T) (commands []string) {
	t.Helper()
	object := regexp.MustCompile(`(?m)^ *[0-9]+\) "object"\n *[0-9]+\) "(.*)"$`)
	for _, m := range object.FindAllStringSubmatch(s.cli(t, "test", "x", "--no-raw", "acl", "log"), -1) {
		commands = append(commands, m[1])
	}
	return commands
}

var urls = regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+`)

func shownURL(line string) string { return urls.FindString(line) }

// TestTheServicesMayDoNoMore tries, with the password of each service, what
// belongs to another.
func TestTheServicesMayDoNoMore(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	if c, err := bus.Connect(t.Context(), bus.Options{URL: s.natsURL}); err == nil {
		c.Close()
		t.Error("NATS lets in who has no password")
	}
	if c, err := bus.Connect(t.Context(), bus.Options{URL: s.natsURL, User: "collector", Password: "wrong"}); err == nil {
		c.Close()
		t.Error("NATS lets in who has a wrong password")
	}
	connect := func(user string) *bus.Conn {
		c, err := bus.Connect(t.Context(), bus.Options{
			URL: s.natsURL, User: user, Password: secret.String(s.secret(t, "nats_"+user)), Name: user,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	publish := func(subject string) func(context.Context, *bus.Conn) error {
		return func(ctx context.Context, c *bus.Conn) error {
			_, err := c.Publish(ctx, bus.Message{Subject: subject, Data: []byte("x")})
			return err
		}
	}
	purge := func(stream string) func(context.Context, *bus.Conn) error {
		return func(ctx context.Context, c *bus.Conn) error { return c.PurgeBefore(ctx, stream, 1) }
	}
	removeAlerts := func(ctx context.Context, c *bus.Conn) error {
		if _, err := c.EnsureStream(ctx, bus.Alerts()); err != nil {
			return err
		}
		return c.PurgeBefore(ctx, bus.AlertsStream, 1)
	}
	last := func(stream string) func(context.Context, *bus.Conn) error {
		return func(ctx context.Context, c *bus.Conn) error {
			_, _, err := c.Last(ctx, stream, ">")
			return err
		}
	}
	for name, test := range map[string]struct {
		user, subject string
		try           func(context.Context, *bus.Conn) error
	}{
		"the collector invents an alert":         {"collector", "tocsin.alert.1", publish("tocsin.alert.1")},
		"the collector moves time":               {"collector", "tocsin.event.1.tick.all", publish("tocsin.event.1.tick.all")},
		"the collector reads what was told":      {"collector", "$JS.API.STREAM.MSG.GET.ALERTS", last(bus.AlertsStream)},
		"the alerter invents a fact":             {"alerter", "tocsin.event.health_sampled.x", publish("tocsin.event.health_sampled.x")},
		"the alerter writes the journal":         {"alerter", "tocsin.delivery.1", publish("tocsin.delivery.1")},
		"the alerter takes the notifier's lease": {"alerter", "$KV.tocsin-leases.notifier", publish("$KV.tocsin-leases.notifier")},
		"the notifier invents a fact":            {"notifier", "tocsin.event.health_sampled.x", publish("tocsin.event.health_sampled.x")},
		"the notifier takes a partition":         {"notifier", "$KV.tocsin-leases.partition-01", publish("$KV.tocsin-leases.partition-01")},
		"the notifier reads the facts":           {"notifier", "$JS.API.STREAM.INFO.EVENTS", purge(bus.EventsStream)},
		"the notifier removes what was alerted":  {"notifier", "$JS.API.STREAM.PURGE.ALERTS", removeAlerts},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			tried := make(chan error, 1)
			go func() { tried <- test.try(ctx, connect(test.user)) }()
			// Who is refused is not told by an answer: it would wait until its context ends.
			s.nats.WaitFor(0, "Publish Violation", "user:"+test.user+`"`, `Subject "`+test.subject+`"`)
			cancel()
			if err := <-tried; err == nil {
				t.Error("it was done all the same")
			}
		})
	}

	// The one right that takes a month to need: to remove history of deliveries.
	patient, cancel := context.WithTimeout(t.Context(), process.Patience)
	defer cancel()
	notifier := connect("notifier")
	if _, err := notifier.EnsureStream(patient, bus.Deliveries()); err != nil {
		t.Error(err)
	}
	if err := notifier.PurgeBefore(patient, bus.DeliveriesStream, 1); err != nil {
		t.Errorf("the notifier cannot remove its own history: %v", err)
	}

	password := s.secret(t, "redis_alerter")
	for name, test := range map[string]struct {
		user, password, want string
		command              []string
	}{
		"a key of its own":      {"alerter", password, "OK", []string{"set", "{tocsin:01}:head", "x"}},
		"another key":           {"alerter", password, "NOPERM", []string{"set", "other", "x"}},
		"all keys":              {"alerter", password, "NOPERM", []string{"flushall"}},
		"a setting":             {"alerter", password, "NOPERM", []string{"config", "set", "maxmemory", "1"}},
		"a script":              {"alerter", password, "NOPERM", []string{"eval", "return 1", "0"}},
		"without a password":    {"", "", "NOAUTH", []string{"get", "{tocsin:01}:head"}},
		"with a wrong password": {"alerter", "wrong", "NOAUTH", []string{"get", "{tocsin:01}:head"}},
		"health's ping":         {"health", "none", "PONG", []string{"ping"}},
		"health's curiosity":    {"health", "none", "NOPERM", []string{"get", "{tocsin:01}:head"}},
	} {
		if got := s.cli(t, test.user, test.password, test.command...); !strings.Contains(got, test.want) {
			t.Errorf("%s: Redis answers %q, want %s", name, got, test.want)
		}
	}
}
