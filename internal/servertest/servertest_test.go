package servertest_test

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
)

func TestNATSKeepsItsPortAndMessagesOverARestart(t *testing.T) {
	s := servertest.NATS(t)
	c := s.Conn(t)
	if _, err := c.EnsureStream(t.Context(), bus.Alerts()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Publish(t.Context(), bus.Message{Subject: "tocsin.alert.3", Data: []byte("kept")}); err != nil {
		t.Fatal(err)
	}
	url := s.URL()
	s.Restart(t)
	if s.URL() != url {
		t.Errorf("the address became %s, was %s", s.URL(), url)
	}
	d, ok, err := s.Conn(t).Last(t.Context(), bus.AlertsStream, "tocsin.alert.3")
	if err != nil || !ok || string(d.Data) != "kept" {
		t.Errorf("after a restart the last message is %q, %v, %v", d.Data, ok, err)
	}
}

func TestRedisForgetsOnFlushAndRestart(t *testing.T) {
	for name, wipe := range map[string]func(*servertest.RedisServer){
		"flush":   func(r *servertest.RedisServer) { r.FlushAll(t) },
		"restart": func(r *servertest.RedisServer) { r.Stop(t); r.Start(t) },
	} {
		t.Run(name, func(t *testing.T) {
			r := servertest.Redis(t)
			redisSays(t, r, "SET k v", "+OK")
			redisSays(t, r, "EXISTS k", ":1")
			wipe(r)
			redisSays(t, r, "EXISTS k", ":0")
		})
	}
}

func TestRedisAnswersAgainAfterAPause(t *testing.T) {
	r := servertest.Redis(t)
	r.Pause(t)
	r.Resume(t)
	redisSays(t, r, "PING", "+PONG")
}

func TestProxyForwardsUntilItIsCut(t *testing.T) {
	r := servertest.NATS(t)
	p := servertest.NewProxy(t, r.Addr())

	greeting := dialGreeting(t, p.Addr())
	if len(greeting) < 4 || greeting[:4] != "INFO" {
		t.Fatalf("through the proxy the server says %q, want its INFO", greeting)
	}
	p.Cut()
	if got := dialGreeting(t, p.Addr()); got != "" {
		t.Errorf("through a cut proxy the server says %q", got)
	}
	p.Heal()
	if got := dialGreeting(t, p.Addr()); got == "" {
		t.Error("a healed proxy lets nothing through")
	}
}

func TestAStalledProxyMovesLaterWhatCameMeanwhile(t *testing.T) {
	p := servertest.NewProxy(t, servertest.Redis(t).Addr())
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	ask := func(limit time.Duration) (string, error) {
		if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(conn, "PING\r\n"); err != nil {
			t.Fatal(err)
		}
		return lines.ReadString('\n')
	}
	if got, err := ask(30 * time.Second); got != "+PONG\r\n" {
		t.Fatalf("through the proxy Redis says %q, %v", got, err)
	}
	p.Stall()
	if got, err := ask(50 * time.Millisecond); err == nil {
		t.Fatalf("through a stalled proxy Redis says %q", got)
	}
	p.Heal()
	for range 2 {
		if got, err := ask(30 * time.Second); got != "+PONG\r\n" {
			t.Fatalf("through the healed proxy Redis says %q, %v", got, err)
		}
	}
	p.Stall()
	p.Cut()
	if got, err := lines.ReadString('\n'); err == nil && got != "+PONG\r\n" {
		t.Errorf("a proxy that stalled and was cut says %q", got)
	}
}

func TestATapHearsWhatIsPassedOn(t *testing.T) {
	p := servertest.NewProxy(t, servertest.Redis(t).Addr())
	type heard struct {
		answer bool
		text   string
	}
	all := make(chan heard, 10)
	p.SetTap(func() servertest.Tap {
		return func(answer bool, data []byte) { all <- heard{answer, string(data)} }
	})
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hears := func(want heard) {
		t.Helper()
		select {
		case got := <-all:
			if got != want {
				t.Errorf("the tap heard %v, want %v", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("the tap heard nothing, want %v", want)
		}
	}
	ping := func() {
		t.Helper()
		if _, err := fmt.Fprint(conn, "PING\r\n"); err != nil {
			t.Fatal(err)
		}
		hears(heard{false, "PING\r\n"})
	}
	ping()
	hears(heard{true, "+PONG\r\n"})
	p.Mute()
	ping() // its answer is not passed on, hence not heard before the next question
	ping()
}

// dialGreeting returns the first line that the server at addr says, or nothing
// when the connection ends before.
func dialGreeting(t *testing.T, addr string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(conn).ReadString('\n') // an end is an empty line
	return line
}

func redisSays(t *testing.T, r *servertest.RedisServer, command, want string) {
	t.Helper()
	conn, err := net.Dial("unix", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
		t.Fatal(err)
	}
	got, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || got != want+"\r\n" {
		t.Errorf("%s answered %q, %v, want %q", command, got, err, want)
	}
}
