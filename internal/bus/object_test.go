package bus_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/internal/servertest"
)

func TestObjectsKeepBlobsOfAnySize(t *testing.T) {
	s := servertest.NATS(t)
	o, err := s.Conn(t).Objects(patient(t), "snapshots")
	if err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("0123456789abcdef"), 3<<20/16)
	blobs := map[string][]byte{"p00/1": large, "p00/2": []byte("small"), "p01/1": {}}
	for name, data := range blobs {
		if err := o.Put(patient(t), name, data); err != nil {
			t.Fatal(err)
		}
	}
	s.Restart(t)
	for name, want := range blobs {
		got, ok, err := o.Get(patient(t), name)
		if err != nil || !ok || !bytes.Equal(got, want) {
			t.Errorf("%s holds %d bytes (%v, %v), want %d", name, len(got), ok, err, len(want))
		}
	}
	list := func(prefix string, want ...string) {
		t.Helper()
		got, err := o.List(patient(t), prefix)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("names with %q (-want +got):\n%s", prefix, diff)
		}
	}
	list("", "p00/1", "p00/2", "p01/1")
	list("p00/", "p00/1", "p00/2")
	list("p02/")

	if err := o.Put(patient(t), "p00/2", []byte("replaced")); err != nil {
		t.Fatal(err)
	}
	if got, _, err := o.Get(patient(t), "p00/2"); err != nil || string(got) != "replaced" {
		t.Errorf("after a second put: %q, %v", got, err)
	}
	for range 2 { // the second time there is nothing to delete
		if err := o.Delete(patient(t), "p00/1"); err != nil {
			t.Error(err)
		}
	}
	if _, ok, err := o.Get(patient(t), "p00/1"); ok || err != nil {
		t.Errorf("a deleted object: %v, %v, want neither", ok, err)
	}
	list("", "p00/2", "p01/1")
}

func TestObjectsOpensAnExistingStoreAndFindsNothingInANewOne(t *testing.T) {
	c := servertest.NATS(t).Conn(t)
	for range 2 {
		o, err := c.Objects(patient(t), "snapshots")
		if err != nil {
			t.Fatal(err)
		}
		if names, err := o.List(patient(t), ""); err != nil || len(names) != 0 {
			t.Errorf("an empty store lists %v, %v", names, err)
		}
		if _, ok, err := o.Get(patient(t), "none"); ok || err != nil {
			t.Errorf("a missing object: %v, %v, want neither", ok, err)
		}
		if err := o.Delete(patient(t), "none"); err != nil {
			t.Errorf("deleting a missing object: %v", err)
		}
	}
}
