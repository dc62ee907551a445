package bus_test

import (
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
)

// TestWhatIsGoneBeginsAnew deletes the streams under buckets, objects and leases,
// as a server that lost its data has, before each thing that is done with them.
func TestWhatIsGoneBeginsAnew(t *testing.T) {
	s := servertest.NATS(t)
	c := s.Conn(t)
	raw, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(raw.Close)
	js, err := raw.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	bucket := openBucket(t, c, bus.BucketConfig{Name: "b"})
	objects, err := c.Objects(patient(t), "o")
	if err != nil {
		t.Fatal(err)
	}
	leases := openLeases(t, c, steady("me"))
	for _, test := range []struct {
		stream, what string
		do           func() error
	}{
		{"KV_b", "put", func() error { _, err := bucket.Put(patient(t), "k", []byte("v")); return err }},
		{"KV_b", "get", func() error { holds(t, bucket, "k", "", 0); return nil }},
		{"KV_b", "create", func() error { _, err := bucket.Create(patient(t), "k", []byte("v")); return err }},
		{"KV_b", "delete", func() error { return bucket.Delete(patient(t), "k") }},
		{"KV_b", "list keys", func() error { _, err := bucket.Keys(patient(t)); return err }},
		{"OBJ_o", "put an object", func() error { return objects.Put(patient(t), "k", []byte("v")) }},
		{"OBJ_o", "get an object", func() error { _, _, err := objects.Get(patient(t), "k"); return err }},
		{"OBJ_o", "list objects", func() error { _, err := objects.List(patient(t), ""); return err }},
		{"OBJ_o", "delete an object", func() error { return objects.Delete(patient(t), "k") }},
		{"KV_leases", "list owners", func() error { _, err := leases.Owners(patient(t)); return err }},
		{"KV_leases", "claim", func() error { claim(t, leases, "l"); return nil }},
	} {
		if err := js.DeleteStream(test.stream); err != nil {
			t.Fatal(err)
		}
		if err := test.do(); err != nil {
			t.Errorf("%s after the loss: %v", test.what, err)
		}
		if _, err := js.StreamInfo(test.stream); err != nil {
			t.Errorf("after %s, %s: %v", test.what, test.stream, err)
		}
	}
	// Who held a lease learns that it is gone, and may have it again.
	lease := claim(t, leases, "l")
	if err := js.DeleteStream("KV_leases"); err != nil {
		t.Fatal(err)
	}
	<-lease.Done()
	claim(t, leases, "l")
}
