package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/internal/bus"
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

// chunks returns the subject of an object's chunks, by the one that was stored last.
func chunks(t *testing.T, c *bus.Conn) string {
	t.Helper()
	d, ok, err := c.Last(patient(t), "OBJ_snapshots", "$O.snapshots.C.>")
	if err != nil || !ok {
		t.Fatalf("the last chunk: %v, %v", ok, err)
	}
	return d.Subject
}

func TestObjectsThatAreDamagedAreToldApart(t *testing.T) {
	const size = 300 << 10 // three chunks
	for name, damage := range map[string]func(*testing.T, *servertest.NATSServer, *bus.Conn, string){
		"all chunks are gone": func(t *testing.T, s *servertest.NATSServer, _ *bus.Conn, subject string) {
			s.Call(t, "STREAM.PURGE.OBJ_snapshots", fmt.Sprintf(`{"filter":%q}`, subject))
		},
		"the last chunk is gone": func(t *testing.T, s *servertest.NATSServer, c *bus.Conn, subject string) {
			d, _, err := c.Last(patient(t), "OBJ_snapshots", subject)
			if err != nil {
				t.Fatal(err)
			}
			s.Call(t, "STREAM.MSG.DELETE.OBJ_snapshots", fmt.Sprintf(`{"seq":%d}`, d.Seq))
		},
		"it is longer": func(t *testing.T, s *servertest.NATSServer, c *bus.Conn, subject string) {
			s.Call(t, "STREAM.PURGE.OBJ_snapshots", fmt.Sprintf(`{"filter":%q,"keep":2}`, subject))
			if _, err := c.Publish(patient(t), bus.Message{Subject: subject, Data: make([]byte, 128<<10)}); err != nil {
				t.Fatal(err)
			}
		},
		"other bytes are in its place": func(t *testing.T, s *servertest.NATSServer, c *bus.Conn, subject string) {
			s.Call(t, "STREAM.PURGE.OBJ_snapshots", fmt.Sprintf(`{"filter":%q}`, subject))
			for n := size; n > 0; n -= 100 << 10 {
				if _, err := c.Publish(patient(t), bus.Message{Subject: subject, Data: make([]byte, 100<<10)}); err != nil {
					t.Fatal(err)
				}
			}
		},
		"its description is no longer one": func(t *testing.T, _ *servertest.NATSServer, c *bus.Conn, _ string) {
			d, _, err := c.Last(patient(t), "OBJ_snapshots", "$O.snapshots.M.>")
			if err == nil {
				_, err = c.Publish(patient(t), bus.Message{Subject: d.Subject, Data: []byte("rubbish")})
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servertest.NATS(t)
			c := s.Conn(t)
			o, err := c.Objects(patient(t), "snapshots")
			if err != nil {
				t.Fatal(err)
			}
			if err := o.Put(patient(t), "a", bytes.Repeat([]byte("a"), size)); err != nil {
				t.Fatal(err)
			}
			damage(t, s, c, chunks(t, c))
			if _, _, err := o.Get(patient(t), "a"); !errors.Is(err, bus.ErrDamaged) {
				t.Errorf("get gave %v, want %v", err, bus.ErrDamaged)
			}
		})
	}
}

// TestAGetEndsWithItsContext has the content of an object not arrive: the client
// has asked for it, and the answers vanish.
func TestAGetEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := servertest.NATS(t)
	writer, err := s.Conn(t).Objects(patient(t), "snapshots")
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Put(patient(t), "a", make([]byte, 32<<20)); err != nil {
		t.Fatal(err)
	}
	proxy := servertest.NewProxy(t, s.Addr())
	reader, err := s.Connect(t, bus.Options{URL: "nats://" + proxy.Addr()}).Objects(patient(t), "snapshots")
	if err != nil {
		t.Fatal(err)
	}
	stopped := errors.New("stopped")
	for i := range 20 {
		ctx, stop := context.WithCancelCause(patient(t))
		ended := make(chan error, 1)
		go func() {
			_, _, err := reader.Get(ctx, "a")
			ended <- err
		}()
		timer := time.NewTimer(time.Duration(i) * 8 * time.Millisecond)
		<-timer.C // somewhere between its beginning and its end
		proxy.Mute()
		stop(stopped)
		select {
		case err := <-ended:
			if err != nil && !errors.Is(err, stopped) {
				t.Errorf("get ended with %v", err)
			}
		case <-time.After(patience / 2):
			t.Fatal("get outlives its context")
		}
		proxy.Heal()
	}
}

func TestAnObjectThatIsReplacedIsReadWhole(t *testing.T) {
	t.Parallel()
	c := servertest.NATS(t).Conn(t)
	o, err := c.Objects(patient(t), "snapshots")
	if err != nil {
		t.Fatal(err)
	}
	contents := [][]byte{bytes.Repeat([]byte("a"), 2<<20), bytes.Repeat([]byte("b"), 3<<20)}
	if err := o.Put(patient(t), "x", contents[0]); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for i := range 20 {
			if err := o.Put(patient(t), "x", contents[(i+1)%2]); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for reading := true; reading; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			reading = false
		default:
		}
		got, ok, err := o.Get(patient(t), "x")
		if err != nil || !ok || !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
			t.Fatalf("%d bytes, %v, %v: neither of what was put", len(got), ok, err)
		}
	}
}
