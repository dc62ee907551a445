package bus_test

import (
	"context"
	"errors"
	"hash/fnv"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
)

func TestEnsureStreamCreatesExactlyWhatIsAsked(t *testing.T) {
	s := servertest.NATS(t)
	c := s.Conn(t)
	for _, cfg := range []bus.StreamConfig{bus.Events(1 << 30), bus.Alerts(), bus.Deliveries()} {
		if _, err := c.EnsureStream(patient(t), cfg); err != nil {
			t.Fatal(err)
		}
		if _, err := c.EnsureStream(patient(t), cfg); err != nil {
			t.Errorf("the second time %s does not fit its own settings: %v", cfg.Name, err)
		}
	}
	have := rawConfig(t, s, bus.EventsStream)
	type settings struct {
		Subjects             []string
		Source, Destination  string
		MaxAge, Window       time.Duration
		MaxBytes             int64
		Discard              jetstream.DiscardPolicy
		Retention            jetstream.RetentionPolicy
		Storage              jetstream.StorageType
		Atomic, Direct, Deny bool
	}
	got := settings{
		have.Subjects, have.SubjectTransform.Source, have.SubjectTransform.Destination, have.MaxAge, have.Duplicates,
		have.MaxBytes, have.Discard, have.Retention, have.Storage, have.AllowAtomicPublish, have.AllowDirect, have.DenyPurge,
	}
	want := settings{
		Subjects:    []string{"tocsin.event.*.*", "tocsin.event.*.*.*"},
		Source:      "tocsin.event.*.*",
		Destination: "tocsin.event.{{partition(64,2)}}.{{wildcard(1)}}.{{wildcard(2)}}",
		MaxAge:      7 * 24 * time.Hour,
		Window:      40 * time.Minute,
		MaxBytes:    1 << 30,
		Discard:     jetstream.DiscardNew,
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Atomic:      true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings of EVENTS (-want +got):\n%s", diff)
	}
}

func TestEnsureStreamReportsEveryDifferenceAndChangesNothing(t *testing.T) {
	s, c := open(t, stream())
	publish(t, c, "test.a", 1)
	before := rawConfig(t, s, "TEST")

	wanted := bus.StreamConfig{
		Name:            "TEST",
		Subjects:        []string{"test.*"},
		Transform:       &bus.Transform{Source: "test.*", Destination: "test.x.{{wildcard(1)}}"},
		MaxAge:          2 * time.Hour,
		MaxBytes:        1 << 20,
		DuplicateWindow: 20 * time.Minute,
	}
	_, err := c.EnsureStream(patient(t), wanted)
	mismatch, ok := errors.AsType[*bus.MismatchError](err)
	if !ok {
		t.Fatalf("error %v is no MismatchError", err)
	}
	want := &bus.MismatchError{Stream: "TEST", Settings: []bus.Setting{
		{Name: "discard", Have: "DiscardNew", Want: "DiscardOld"},
		{Name: "duplicate_window", Have: "10m0s", Want: "20m0s"},
		{Name: "max_age", Have: "1h0m0s", Want: "2h0m0s"},
		{Name: "max_bytes", Have: "-1", Want: "1048576"},
		{Name: "subject_transform", Have: "none", Want: "test.* -> test.x.{{wildcard(1)}}"},
		{Name: "subjects", Have: "test.>", Want: "test.*"},
	}}
	if diff := cmp.Diff(want, mismatch); diff != "" {
		t.Errorf("mismatch (-want +got):\n%s", diff)
	}
	for _, s := range want.Settings {
		if !strings.Contains(err.Error(), s.Name) || !strings.Contains(err.Error(), s.Want) {
			t.Errorf("error %q does not name %s and %s", err, s.Name, s.Want)
		}
	}
	if diff := cmp.Diff(before, rawConfig(t, s, "TEST")); diff != "" {
		t.Errorf("the stream was changed (-before +after):\n%s", diff)
	}
}

func TestEnsureStreamSeesWhatBreaksThePromises(t *testing.T) {
	base := jetstream.StreamConfig{
		Name: "TEST", Subjects: []string{"test.>"}, MaxAge: time.Hour, Discard: jetstream.DiscardNew,
		Duplicates: 10 * time.Minute, AllowAtomicPublish: true, Storage: jetstream.FileStorage,
	}
	tests := map[string]struct {
		change func(*jetstream.StreamConfig)
		want   string
	}{
		"a work queue":                  {func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }, "retention"},
		"a stream in memory":            {func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, "storage"},
		"a limit of messages":           {func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 }, "max_msgs"},
		"only the last of each subject": {func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 }, "max_msgs_per_subject"},
		"a limit of one message's size": {func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1024 }, "max_msg_size"},
		"no acknowledgements":           {func(c *jetstream.StreamConfig) { c.NoAck = true; c.AllowAtomicPublish = false }, "no_ack"},
		"purging denied":                {func(c *jetstream.StreamConfig) { c.DenyPurge = true }, "deny_purge"},
		"no atomic batches":             {func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false }, "allow_atomic"},
		"acknowledged before it is kept": {func(c *jetstream.StreamConfig) {
			c.PersistMode = jetstream.AsyncPersistMode
			c.AllowAtomicPublish = false
		}, "persist_mode"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := servertest.NATS(t)
			cfg := base
			test.change(&cfg)
			if _, err := rawJetStream(t, s).CreateStream(patient(t), cfg); err != nil {
				t.Fatal(err)
			}
			_, err := s.Conn(t).EnsureStream(patient(t), stream())
			mismatch, ok := errors.AsType[*bus.MismatchError](err)
			if !ok {
				t.Fatalf("error %v is no MismatchError", err)
			}
			if !strings.Contains(mismatch.Error(), " "+test.want+" is ") {
				t.Errorf("error %q does not name %s", mismatch, test.want)
			}
		})
	}
}

func TestEnsureStreamLeavesTheOperatorsChoices(t *testing.T) {
	s := servertest.NATS(t)
	cfg := jetstream.StreamConfig{
		Name: "TEST", Description: "mine", Subjects: []string{"test.>"}, MaxAge: time.Hour, Discard: jetstream.DiscardNew,
		Duplicates: 10 * time.Minute, AllowAtomicPublish: true, Compression: jetstream.S2Compression,
		Metadata: map[string]string{"team": "x"}, AllowDirect: true, MaxBytes: 5 << 20,
	}
	if _, err := rawJetStream(t, s).CreateStream(patient(t), cfg); err != nil {
		t.Fatal(err)
	}
	state, err := s.Conn(t).EnsureStream(patient(t), stream(func(c *bus.StreamConfig) {
		c.MaxBytes, c.FitBytes = 1<<40, true
	}))
	if err != nil {
		t.Fatal(err)
	}
	if state.MaxBytes != 5<<20 {
		t.Errorf("the state tells a limit of %d, want the stream's own", state.MaxBytes)
	}
}

func TestEventsTakesLessWhereTheDiskIsSmall(t *testing.T) {
	s := servertest.NATS(t, func(o *server.Options) { o.JetStreamMaxStore = 3 << 30 })
	c := s.Conn(t)
	state, err := c.EnsureStream(patient(t), bus.Events(0))
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(10 << 30 / 4); state.MaxBytes != want {
		t.Errorf("EVENTS may hold %d bytes, want %d: 10 GiB halved until it fits in 3 GiB", state.MaxBytes, want)
	}
	if _, err := c.EnsureStream(patient(t), bus.Events(0)); err != nil {
		t.Errorf("the next start: %v", err)
	}
}

func TestEventsRefusesASizeThatTheDiskCannotHold(t *testing.T) {
	s := servertest.NATS(t, func(o *server.Options) { o.JetStreamMaxStore = 3 << 30 })
	if _, err := s.Conn(t).EnsureStream(patient(t), bus.Events(4<<30)); err == nil {
		t.Error("a stream of 4 GiB was created where 3 GiB are free")
	}
}

func TestEventsStoresEachTargetInItsPartition(t *testing.T) {
	_, c := open(t, bus.Events(0))
	for _, target := range []string{"default-endpoint-abc", "default-pod-x1", "a_2d_b-account-all", "z"} {
		ack, err := c.Publish(patient(t), bus.Message{Subject: "tocsin.event.health_sampled." + target})
		if err != nil {
			t.Fatal(err)
		}
		h := fnv.New32a()
		h.Write([]byte(target))
		want := "tocsin.event." + strconv.Itoa(int(h.Sum32()%64)) + ".health_sampled." + target
		d, ok, err := c.At(patient(t), bus.EventsStream, ack.Seq)
		if err != nil || !ok || d.Subject != want {
			t.Errorf("%s is stored as %q (%v, %v), want %q", target, d.Subject, ok, err, want)
		}
	}
	ack, err := c.Publish(patient(t), bus.Message{Subject: "tocsin.event.7.tick.all"})
	if err != nil {
		t.Fatal(err)
	}
	if d, _, _ := c.At(patient(t), bus.EventsStream, ack.Seq); d.Subject != "tocsin.event.7.tick.all" {
		t.Errorf("a message to a partition is stored as %q", d.Subject)
	}
}

func TestStreamStateFollowsTheStream(t *testing.T) {
	_, c := open(t, stream())
	check := func(when string, first, last, messages uint64) {
		t.Helper()
		s, err := c.StreamState(patient(t), "TEST")
		if err != nil {
			t.Fatal(err)
		}
		if s.FirstSeq != first || s.LastSeq != last || s.Messages != messages {
			t.Errorf("%s: first %d, last %d, %d messages; want %d, %d, %d",
				when, s.FirstSeq, s.LastSeq, s.Messages, first, last, messages)
		}
	}
	check("a new stream", 1, 0, 0)
	publish(t, c, "test.a", 5)
	check("five messages", 1, 5, 5)
	if err := c.PurgeBefore(patient(t), "TEST", 4); err != nil {
		t.Fatal(err)
	}
	check("purged below 4", 4, 5, 2)
	if err := c.PurgeBefore(patient(t), "TEST", 6); err != nil {
		t.Fatal(err)
	}
	check("purged below 6", 6, 5, 0)

	if _, err := c.StreamState(patient(t), "NONE"); !errors.Is(err, bus.ErrStreamNotFound) {
		t.Errorf("the state of no stream is the error %v, want ErrStreamNotFound", err)
	}
}

func TestLastAndAtFindMessagesOrSayThatThereAreNone(t *testing.T) {
	_, c := open(t, stream(func(c *bus.StreamConfig) { c.Subjects = []string{"test.>"} }))
	publish(t, c, "test.a", 3)
	publish(t, c, "test.b", 1)

	d, ok, err := c.Last(patient(t), "TEST", "test.a")
	if err != nil || !ok {
		t.Fatalf("last: %v, %v", ok, err)
	}
	if d.Seq != 3 || d.ID != "test.a-2" || string(d.Data) != "2" || d.Time.IsZero() {
		t.Errorf("the last message is %+v", d)
	}
	if d, ok, err := c.At(patient(t), "TEST", 2); err != nil || !ok || string(d.Data) != "1" {
		t.Errorf("message 2 is %q, %v, %v", d.Data, ok, err)
	}
	for name, get := range map[string]func() (bus.Delivery, bool, error){
		"a subject without messages": func() (bus.Delivery, bool, error) { return c.Last(patient(t), "TEST", "test.none") },
		"a sequence to come":         func() (bus.Delivery, bool, error) { return c.At(patient(t), "TEST", 99) },
	} {
		if _, ok, err := get(); ok || err != nil {
			t.Errorf("%s: %v, %v, want neither", name, ok, err)
		}
	}
	if _, _, err := c.Last(patient(t), "NONE", "test.a"); !errors.Is(err, bus.ErrStreamNotFound) {
		t.Errorf("the last of no stream is the error %v, want ErrStreamNotFound", err)
	}
}

func TestRequestsWaitForTheServer(t *testing.T) {
	s, c := open(t, stream())
	publish(t, c, "test.a", 1)
	s.Stop()

	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := c.Last(short, "TEST", "test.a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the server is away: %v, want the context's end", err)
	}
	answer := make(chan error, 1)
	ctx := patient(t)
	go func() {
		_, _, err := c.Last(ctx, "TEST", "test.a")
		answer <- err
	}()
	s.Start(t)
	if err := <-answer; err != nil {
		t.Errorf("after its return: %v", err)
	}
}

// rawJetStream speaks to the server without this package, as an operator would.
func rawJetStream(t *testing.T, s *servertest.NATSServer) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func rawConfig(t *testing.T, s *servertest.NATSServer, name string) jetstream.StreamConfig {
	t.Helper()
	raw, err := rawJetStream(t, s).Stream(patient(t), name)
	if err != nil {
		t.Fatal(err)
	}
	return raw.CachedInfo().Config
}
