package plan

// The processes.
const (
	NATS      = "nats"
	Redis     = "redis"
	Collector = "collector"
	Alerter1  = "alerter1"
	Alerter2  = "alerter2"
	Notifier1 = "notifier1"
	Notifier2 = "notifier2"
)

// Events is the stream of events in NATS.
const Events = "EVENTS"

// Services are the processes that are Tocsin's: two of each that may have two.
var Services = []string{Collector, Alerter1, Alerter2, Notifier1, Notifier2}

// The receivers, each told of every alert: one that is always well, one that is
// not, and one that is neither and gets Alertmanager's payload.
const (
	Steady  = "steady"
	Moody   = "moody"
	Grouped = "grouped"
)

// Receivers are all of them.
var Receivers = []string{Steady, Moody, Grouped}

// RunPod is whom the collector asks.
const RunPod = "runpod"

// Client is the program that submits jobs, and RunPod that calls at their end.
const Client = "client"

// To names the link from a process to what it talks to. All notifiers share the
// link to a receiver, since they share their routes.
func To(from, to string) string { return from + "-" + to }

// Notifiers are the near end of the links to receivers, and the far end of those
// from the alerters.
const Notifiers = "notifier"

// Links are the connections between processes.
var Links = links()

func links() []string {
	all := []string{To(Collector, RunPod), To(Client, Collector)}
	for _, s := range Services {
		all = append(all, To(s, NATS))
	}
	for _, a := range []string{Alerter1, Alerter2} {
		all = append(all, To(a, Redis), To(a, Notifiers))
	}
	for _, r := range Receivers {
		all = append(all, To(Notifiers, r))
	}
	return all
}

// Endpoints are those of the account.
var Endpoints = endpoints(16)

// Constant is one of them: it has too many waiting jobs from the beginning to the
// end, so that its alerts begin before anything breaks and must go on firing.
var Constant = Endpoints[0]

func endpoints(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = "endpoint" + string(rune('a'+i))
	}
	return all
}
