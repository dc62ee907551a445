package bus_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
)

// quick makes leases that lapse fast enough for tests. JetStream's markers
// allow no TTL below a second.
func quick(owner string) bus.LeaseOptions {
	return bus.LeaseOptions{
		Owner: owner, TTL: time.Second, Renew: 100 * time.Millisecond, StopAfter: 500 * time.Millisecond,
		Grace: time.Nanosecond,
	}
}

// slow makes leases with room for a machine that stands still for a second and a
// half.
func slow(owner string) bus.LeaseOptions {
	return bus.LeaseOptions{
		Owner: owner, TTL: 2 * time.Second, Renew: 50 * time.Millisecond, StopAfter: 1900 * time.Millisecond,
		Grace: time.Nanosecond,
	}
}

// steady makes leases that lapse in no test, however slow the machine.
func steady(owner string) bus.LeaseOptions {
	return bus.LeaseOptions{Owner: owner, TTL: time.Hour, Renew: 20 * time.Millisecond, StopAfter: 30 * time.Minute}
}

func openLeases(t *testing.T, c *bus.Conn, o bus.LeaseOptions) *bus.Leases {
	t.Helper()
	l, err := c.Leases(patient(t), "leases", o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func claim(t *testing.T, l *bus.Leases, name string) *bus.Lease {
	t.Helper()
	lease, ok, err := l.Claim(patient(t), name)
	if err != nil || !ok {
		t.Fatalf("claim %s: %v, %v", name, ok, err)
	}
	return lease
}

func refuseClaim(t *testing.T, why string, l *bus.Leases, name string) {
	t.Helper()
	if lease, ok, err := l.Claim(patient(t), name); ok || err != nil || lease != nil {
		t.Errorf("%s: claiming gives %v, %v, %v, want no and no error", why, lease, ok, err)
	}
}

// TestALeaseThatIsNotRenewedIsTakenThoughTheServerKeepsIt has a holder vanish
// from a server that frees no lease any more, as one does whose clock was set
// back. A lease that is renewed stays its holder's.
func TestALeaseThatIsNotRenewedIsTakenThoughTheServerKeepsIt(t *testing.T) {
	t.Parallel()
	s := servertest.NATS(t)
	p, c := proxied(t, s)
	vanishing, staying, waiting := openLeases(t, c, slow("vanishing")), openLeases(t, s.Conn(t), slow("staying")), openLeases(t, s.Conn(t), slow("waiting"))
	raw, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(raw.Close)
	js, err := raw.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	info, err := js.StreamInfo("KV_leases")
	if err != nil {
		t.Fatal(err)
	}
	info.Config.MaxAge = time.Hour
	if _, err := js.UpdateStream(&info.Config); err != nil {
		t.Fatal(err)
	}
	claim(t, vanishing, "gone")
	held := claim(t, staying, "kept")
	p.Cut()
	eventually(t, "the lease that nobody renews is taken", func() bool {
		refuseClaim(t, "it is renewed", waiting, "kept")
		_, ok, err := waiting.Claim(patient(t), "gone")
		return ok && err == nil
	})
	if !held.Valid() {
		t.Error("the lease that is renewed is not valid")
	}
	eventually(t, "the owners are those that renew", func() bool {
		owners, err := waiting.Owners(patient(t))
		return err == nil && owners["gone"] == "waiting" && owners["kept"] == "staying"
	})
}

// proxied connects to s through a proxy.
func proxied(t *testing.T, s *servertest.NATSServer) (*servertest.Proxy, *bus.Conn) {
	t.Helper()
	p := servertest.NewProxy(t, s.Addr())
	return p, s.Connect(t, bus.Options{URL: "nats://" + p.Addr()})
}

func TestLeaseHasOneHolderUntilItIsReleased(t *testing.T) {
	t.Parallel()
	s := servertest.NATS(t)
	a := openLeases(t, s.Conn(t), steady("a"))
	b := openLeases(t, s.Conn(t), steady("b"))

	lease := claim(t, a, "p07")
	other := claim(t, b, "p08")
	if !lease.Valid() || isClosed(lease.Done()) {
		t.Error("a new lease is not valid")
	}
	if again := claim(t, a, "p07"); again != lease {
		t.Error("claiming one's own lease gives another")
	}
	refuseClaim(t, "held by another", b, "p07")
	owners, err := b.Owners(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"p07": "a", "p08": "b"}, owners); diff != "" {
		t.Errorf("owners (-want +got):\n%s", diff)
	}

	lease.Release()
	if lease.Valid() || !isClosed(lease.Done()) {
		t.Error("a released lease is valid")
	}
	if !claim(t, b, "p07").Valid() {
		t.Error("the next holder's lease is not valid")
	}
	if !other.Valid() {
		t.Error("releasing one lease ended another")
	}
	lease.Release() // a second time must not free what another holds
	refuseClaim(t, "held by the next", a, "p07")
}

func TestLeaseClaimedTwiceAtOnceIsHeldOnce(t *testing.T) {
	t.Parallel()
	a := openLeases(t, servertest.NATS(t).Conn(t), steady("a"))
	ctx := patient(t)
	for n := range 50 {
		name := fmt.Sprint("x", n)
		leases := make(chan *bus.Lease, 4)
		for range cap(leases) {
			go func() {
				lease, _, err := a.Claim(ctx, name)
				if err != nil {
					t.Error(err)
				}
				leases <- lease
			}()
		}
		different := map[*bus.Lease]bool{}
		for range cap(leases) {
			if lease := <-leases; lease != nil {
				different[lease] = true
			}
		}
		if len(different) != 1 {
			t.Fatalf("%d leases of one name", len(different))
		}
	}
}

func TestLeaseOutlivesItsTTLByRenewals(t *testing.T) {
	t.Parallel()
	s := servertest.NATS(t)
	a := openLeases(t, s.Conn(t), slow("a"))
	b := openLeases(t, s.Conn(t), slow("b"))
	held := claim(t, a, "kept")

	// A lease that nobody renews measures the time: it must expire at the server
	// twice while the renewed one stays.
	for n := range 2 {
		doomed := s.Conn(t)
		claim(t, openLeases(t, doomed, slow("doomed")), "doomed")
		doomed.Close()
		eventually(t, "the lease of a dead process expires", func() bool {
			owners, err := b.Owners(patient(t))
			return err == nil && owners["doomed"] == ""
		})
		if !held.Valid() {
			t.Fatalf("the renewed lease is gone after %d times its TTL", n+1)
		}
		refuseClaim(t, "renewed", b, "kept")
	}
}

func TestLeaseOfADeadHolderIsTakenOver(t *testing.T) {
	t.Parallel()
	s := servertest.NATS(t)
	dying := s.Conn(t)
	a := openLeases(t, dying, quick("a"))
	b := openLeases(t, s.Conn(t), quick("b"))
	lease := claim(t, a, "x")
	dying.Close() // as a crash: nothing is released
	eventually(t, "the other takes over", func() bool {
		_, ok, err := b.Claim(patient(t), "x")
		return ok && err == nil
	})
	if lease.Valid() {
		t.Error("the dead holder's lease is valid")
	}
}

func TestLeaseEndsAtItsHolderBeforeAnotherGetsIt(t *testing.T) {
	t.Parallel()
	for name, isolate := range map[string]func(*servertest.Proxy){
		"cut off":             (*servertest.Proxy).Cut,
		"hearing no answers":  (*servertest.Proxy).Mute,
		"cut off while muted": func(p *servertest.Proxy) { p.Mute(); p.Cut() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servertest.NATS(t)
			proxy, isolated := proxied(t, s)
			lease := claim(t, openLeases(t, isolated, quick("a")), "x")
			b := openLeases(t, s.Conn(t), quick("b"))
			isolate(proxy)
			eventually(t, "the other takes over", func() bool {
				_, ok, err := b.Claim(patient(t), "x")
				if ok && lease.Valid() {
					t.Fatal("both hold the lease")
				}
				return ok && err == nil
			})
			closed(t, "the isolated holder is told", lease.Done())
		})
	}
}

func TestLeaseIsKeptOverARestartOfTheServer(t *testing.T) {
	t.Parallel()
	s := servertest.NATS(t)
	c := s.Conn(t)
	a := openLeases(t, c, steady("a"))
	lease := claim(t, a, "x")
	s.Restart(t)
	b := openLeases(t, s.Conn(t), steady("b"))
	refuseClaim(t, "held over the restart", b, "x")
	if !lease.Valid() || isClosed(lease.Done()) {
		t.Error("the restart ended the lease")
	}
}

func TestLeaseLostInAnOutageReturnsToItsHolderAtOnce(t *testing.T) {
	t.Parallel()
	s := servertest.NATS(t)
	proxy, unlucky := proxied(t, s)
	// The server keeps the key for long, so that only its own claim on it can
	// give the lease back within this test's patience.
	o := bus.LeaseOptions{Owner: "a", TTL: time.Hour, Renew: 50 * time.Millisecond, StopAfter: 200 * time.Millisecond}
	a := openLeases(t, unlucky, o)
	lease := claim(t, a, "x")
	proxy.Cut()
	closed(t, "the lease lapses", lease.Done())
	proxy.Heal()

	b := openLeases(t, s.Conn(t), o)
	refuseClaim(t, "still the first one's at the server", b, "x")
	eventually(t, "it returns to its holder", func() bool {
		again, ok, err := a.Claim(patient(t), "x")
		return err == nil && ok && again != lease
	})
}

func TestLeaseIsLostWhenAnotherWroteItsKey(t *testing.T) {
	t.Parallel()
	s := servertest.NATS(t)
	reg := prometheus.NewRegistry()
	c := s.Connect(t, bus.Options{Registerer: reg})
	lease := claim(t, openLeases(t, c, steady("a")), "x")
	if got := metric(t, reg, "tocsin_bus_leases_held"); got != 1 {
		t.Errorf("%v leases held, want 1", got)
	}
	kv, err := rawJetStream(t, s).KeyValue(patient(t), "leases")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(patient(t), "x", []byte(`{"owner":"b","token":"t"}`)); err != nil {
		t.Fatal(err)
	}
	closed(t, "the holder notices", lease.Done())
	if lease.Valid() {
		t.Error("the lost lease is valid")
	}
	if got := metric(t, reg, "tocsin_bus_leases_lost_total"); got != 1 {
		t.Errorf("%v leases lost, want 1", got)
	}
	if got := metric(t, reg, "tocsin_bus_leases_held"); got != 0 {
		t.Errorf("%v leases held, want 0", got)
	}
}

func TestAfterAnOutageOnlyPreviousHoldersMayClaim(t *testing.T) {
	t.Parallel()
	s := servertest.NATS(t)
	graced := func(owner string) bus.LeaseOptions {
		o := quick(owner)
		o.Grace = time.Hour
		return o
	}
	a := openLeases(t, s.Conn(t), graced("a"))
	other := s.Conn(t)
	b := openLeases(t, other, graced("b"))
	lease := claim(t, a, "x")
	s.Stop()
	closed(t, "the lease lapses during the outage", lease.Done())
	s.Start(t)
	eventually(t, "the other is connected", other.Connected)

	eventually(t, "the previous holder has it again", func() bool {
		if _, ok, _ := b.Claim(patient(t), "x"); ok {
			t.Fatal("another took the lease within the grace")
		}
		_, ok, err := a.Claim(patient(t), "x")
		return ok && err == nil
	})
	refuseClaim(t, "never held here before", b, "y")
	refuseClaim(t, "never held here before", a, "z")
}

func TestLeasesRefusesDurationsOutOfOrder(t *testing.T) {
	t.Parallel()
	c := servertest.NATS(t).Conn(t)
	for name, o := range map[string]bus.LeaseOptions{
		"stopping after the server frees it": {TTL: time.Second, StopAfter: 2 * time.Second},
		"renewing after it stopped":          {Renew: 5 * time.Second},
	} {
		if _, err := c.Leases(patient(t), "leases", o); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
