package bus_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
)

func openBucket(t *testing.T, c *bus.Conn, cfg bus.BucketConfig) *bus.Bucket {
	t.Helper()
	b, err := c.Bucket(patient(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// holds checks the value of a key; want "" means that there must be none.
func holds(t *testing.T, b *bus.Bucket, key, want string, wantRev uint64) {
	t.Helper()
	value, rev, ok, err := b.Get(patient(t), key)
	if err != nil || string(value) != want || rev != wantRev || ok != (want != "") {
		t.Errorf("%s holds %q at %d (%v, %v), want %q at %d", key, value, rev, ok, err, want, wantRev)
	}
}

func TestBucketComparesAndSets(t *testing.T) {
	b := openBucket(t, servertest.NATS(t).Conn(t), bus.BucketConfig{Name: "b"})
	holds(t, b, "k", "", 0)

	rev, err := b.Create(patient(t), "k", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	holds(t, b, "k", "one", rev)
	if _, err := b.Create(patient(t), "k", []byte("other")); !errors.Is(err, bus.ErrExists) {
		t.Errorf("creating it again gives %v, want ErrExists", err)
	}

	next, err := b.Update(patient(t), "k", []byte("two"), rev)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Update(patient(t), "k", []byte("stale"), rev); !errors.Is(err, bus.ErrWrongSequence) {
		t.Errorf("updating a stale revision gives %v, want ErrWrongSequence", err)
	}
	holds(t, b, "k", "two", next)

	put, err := b.Put(patient(t), "k", []byte("three"))
	if err != nil {
		t.Fatal(err)
	}
	holds(t, b, "k", "three", put)

	if err := b.Delete(patient(t), "k"); err != nil {
		t.Fatal(err)
	}
	holds(t, b, "k", "", 0)
	if err := b.Delete(patient(t), "never"); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
	if rev, err = b.Create(patient(t), "k", []byte("anew")); err != nil {
		t.Fatalf("creating a deleted key: %v", err)
	}
	holds(t, b, "k", "anew", rev)
}

func TestBucketListsItsKeys(t *testing.T) {
	b := openBucket(t, servertest.NATS(t).Conn(t), bus.BucketConfig{Name: "b"})
	keys := func() []string {
		t.Helper()
		keys, err := b.Keys(patient(t))
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	if got := keys(); len(got) != 0 {
		t.Errorf("an empty bucket has the keys %v", got)
	}
	for _, k := range []string{"c", "a", "b"} {
		if _, err := b.Put(patient(t), k, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Delete(patient(t), "b"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "c"}, keys()); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

func TestBucketForgetsExpiredValues(t *testing.T) {
	t.Parallel()
	b := openBucket(t, servertest.NATS(t).Conn(t), bus.BucketConfig{Name: "b", TTL: time.Second})
	rev, err := b.Put(patient(t), "k", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	holds(t, b, "k", "x", rev)
	eventually(t, "the value expires", func() bool {
		_, _, ok, err := b.Get(patient(t), "k")
		return err == nil && !ok
	})
	if _, err := b.Create(patient(t), "k", []byte("y")); err != nil {
		t.Errorf("creating it after its expiry: %v", err)
	}
}

func TestBucketSurvivesARestart(t *testing.T) {
	s := servertest.NATS(t)
	b := openBucket(t, s.Conn(t), bus.BucketConfig{Name: "b"})
	rev, err := b.Put(patient(t), "k", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	s.Restart(t)
	holds(t, b, "k", "x", rev)
}

func TestBucketSaysWhenTheOutcomeIsUnknown(t *testing.T) {
	s := servertest.NATS(t)
	b := openBucket(t, s.Conn(t), bus.BucketConfig{Name: "b"})
	s.Stop()
	if _, err := b.Create(patient(t), "k", nil); !errors.Is(err, bus.ErrUnknownOutcome) {
		t.Errorf("creating gives %v, want ErrUnknownOutcome", err)
	}
	if _, err := b.Update(patient(t), "k", nil, 1); !errors.Is(err, bus.ErrUnknownOutcome) {
		t.Errorf("updating gives %v, want ErrUnknownOutcome", err)
	}
}

func TestBucketReportsOtherSettings(t *testing.T) {
	s := servertest.NATS(t)
	_, err := rawJetStream(t, s).CreateKeyValue(patient(t), jetstream.KeyValueConfig{
		Bucket: "b", History: 5, TTL: time.Minute, Storage: jetstream.MemoryStorage,
	})
	if err != nil {
		t.Fatal(err)
	}
	before := rawConfig(t, s, "KV_b")
	_, err = s.Conn(t).Bucket(patient(t), bus.BucketConfig{Name: "b", TTL: 3 * time.Second})
	want := &bus.MismatchError{Stream: "KV_b", Settings: []bus.Setting{
		{Name: "max_age", Have: "1m0s", Want: "3s"},
		{Name: "max_msgs_per_subject", Have: "5", Want: "1"},
		{Name: "storage", Have: "Memory", Want: "File"},
		{Name: "subject_delete_marker_ttl", Have: "0s", Want: "1s"},
	}}
	got, _ := errors.AsType[*bus.MismatchError](err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mismatch (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, rawConfig(t, s, "KV_b")); diff != "" {
		t.Errorf("the bucket was changed (-before +after):\n%s", diff)
	}
}
