package notifier_test

import (
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/servertest"
)

// A receiver that was told that an alert fires is told of its end, whatever
// changed in the file at a restart before.
func TestAReceiverThatWasToldHearsTheEndAfterAChangeOfTheFile(t *testing.T) {
	file := func(route, receiver, url string) string {
		return "route: {" + route + ", group_wait: 0s, group_interval: 10ms, repeat_interval: 4h}\nreceivers:\n- name: nobody\n- name: " +
			receiver + "\n  tocsin_configs:\n  - url: " + url + "\n"
	}
	const all = "group_by: ['...']"
	for _, c := range []struct {
		name   string
		route  string
		rename bool
		move   bool // to another URL
		again  bool // the new address is told that the alert fires
	}{
		{name: "the route is removed", route: "receiver: nobody, " + all},
		{name: "the grouping is another", route: "receiver: ops, group_by: [alertname]"},
		{name: "the receiver is renamed", route: "receiver: team, " + all, rename: true},
		{name: "the URL is another", route: "receiver: ops, " + all, move: true, again: true},
		{name: "the URL is another and the route is removed", route: "receiver: nobody, " + all, move: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			nats, old, s := servertest.NATS(t), newHook(t), &story{}
			p := start(t, nats.URL(), file("receiver: ops, "+all, "ops", old.URL))
			p.notify(t, s.fire("a"), s.fire("away"))
			old.until(t, 2)
			p.stop(t)

			receiver, at := "ops", old
			if c.rename {
				receiver = "team"
			}
			if c.move {
				at = newHook(t)
			}
			before := len(at.messages())
			p = start(t, nats.URL(), file(c.route, receiver, at.URL))
			p.notify(t, s.resolve("away"), s.resolve("a"))
			got := at.wait(t, "the ends", func(ms []message) bool {
				heard := heardIn(t, ms)
				return heard["a"] == "resolved" && heard["away"] == "resolved"
			})[before:]
			told := 0
			for _, m := range got {
				if states(t, m)["a"] == "firing" {
					told++
				}
				if !strings.Contains(m.Body, `"receiver":"`+receiver+`"`) {
					t.Errorf("receiver %s is told %s", receiver, m.Body)
				}
			}
			if told > 0 && !c.again {
				t.Errorf("an address that knew it was told again that the alert fires:%s", show(got))
			}
			p.stop(t)
			if n := len(old.messages()); c.move && n != 2 {
				t.Errorf("the old address got %d messages, want 2: %s", n, show(old.messages()))
			}
		})
	}
}

// What a receiver was not told yet goes to its new address.
func TestAPendingMessageIsToldAtTheNewAddress(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	p := start(t, nats.URL(), routes("  tocsin_configs:\n  - url: http://127.0.0.1:1/\n"))
	p.notify(t, s.fire("a"), s.fire("brief"))
	p.waitLog(t, `"result":"failed"`)
	p.notify(t, s.resolve("brief"))
	p.stop(t)
	p = start(t, nats.URL(), standardTo(h))
	got := h.wait(t, "what was pending", func(ms []message) bool {
		heard := heardIn(t, ms)
		return heard["a"] == "firing" && heard["brief"] == "resolved"
	})
	if len(got) != 2 {
		t.Errorf("got %s, want one message of each alert", show(got))
	}
	p.waitLog(t, "has another address")
}

func TestAReceiverThatIsGoneIsNamedInTheLog(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	p := start(t, nats.URL(), standardTo(h))
	p.notify(t, s.fire("a"))
	h.until(t, 1)
	p.stop(t)
	p = start(t, nats.URL(), "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
	p.waitLog(t, "a receiver is not configured any more and is not told the end of its alerts")
	p.notify(t, s.resolve("a"))
	p.stop(t)
	if n := len(h.messages()); n != 1 {
		t.Errorf("%d messages, want 1: %s", n, show(h.messages()))
	}
}
