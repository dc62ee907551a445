// Package stack runs the whole of Tocsin as processes of their own, two of each
// service that may have two, on a nats-server and a redis-server that are
// processes too, with a proxy on each connection between them that a fault can
// break.
package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/internal/servertest"
	"github.com/tocsin-dev/tocsin/test/fault/account"
	"github.com/tocsin-dev/tocsin/test/fault/clock"
	"github.com/tocsin-dev/tocsin/test/fault/model"
	"github.com/tocsin-dev/tocsin/test/fault/plan"
	"github.com/tocsin-dev/tocsin/test/fault/wire"
	"github.com/tocsin-dev/tocsin/test/internal/ledger"
	"github.com/tocsin-dev/tocsin/test/internal/process"
)

// Programs are the paths of what is run.
type Programs struct{ nats, collector, alerter, notifier string }

// In returns the programs that are in dir.
func In(dir string) Programs {
	return Programs{
		nats: filepath.Join(dir, "nats-server"), collector: filepath.Join(dir, plan.Collector),
		alerter: filepath.Join(dir, "alerter"), notifier: filepath.Join(dir, "notifier"),
	}
}

// Compile builds the programs into dir.
func Compile(dir string) (Programs, error) {
	const module = "github.com/tocsin-dev/tocsin/services/"
	p := In(dir)
	for _, b := range []struct{ program, path string }{
		{p.nats, "github.com/nats-io/nats-server/v2"},
		{p.collector, module + "collector/cmd/collector"},
		{p.alerter, module + "alerter/cmd/alerter"},
		{p.notifier, module + "notifier/cmd/notifier"},
	} {
		if err := process.Compile(b.program, b.path); err != nil {
			return p, err
		}
	}
	return p, nil
}

// Options say what to run.
type Options struct {
	// Programs are those of Compile.
	Programs Programs
	// Endpoints are the ids of RunPod's endpoints.
	Endpoints []string
	// SyncAlways makes NATS sync each write.
	SyncAlways bool
	// Dir gets the configurations, NATS's data and what the processes print.
	Dir string
}

// subjects begins those of Tocsin's streams.
const subjects = "tocsin."

// Stack is the running system. Only the test's goroutine may use it.
type Stack struct {
	// Account is the RunPod that is watched.
	Account *account.Account
	// Ledgers are the receivers, by name.
	Ledgers map[string]*ledger.Ledger
	// Wire is what NATS acknowledged to the services.
	Wire *wire.Account

	t        *testing.T
	opts     Options
	redis    *servertest.RedisServer
	nodes    map[string]*node
	links    map[string]*servertest.Proxy
	ports    *ports
	balancer *balancer
	mark     int // how much was acknowledged when NATS's data was copied
}

// node is a process, or the want of one.
type node struct {
	program string
	args    []string
	log     *os.File
	running *process.Process // nil while it is killed
}

// Start starts everything, and returns before it works.
func Start(t *testing.T, o Options) *Stack {
	t.Helper()
	s := &Stack{
		t: t, opts: o, Account: account.New(t, o.Endpoints), redis: servertest.Redis(t), ports: newPorts(),
		Wire:    wire.New(subjects),
		Ledgers: map[string]*ledger.Ledger{}, nodes: map[string]*node{}, links: map[string]*servertest.Proxy{},
	}
	for _, name := range plan.Receivers {
		s.Ledgers[name] = ledger.New(t)
		s.links[plan.To(plan.Notifiers, name)] = servertest.NewProxy(t, s.Ledgers[name].Addr())
	}
	s.links[plan.To(plan.Collector, plan.RunPod)] = servertest.NewProxy(t, s.Account.Addr())
	s.links[plan.To(plan.Client, plan.Collector)] = servertest.NewProxy(t, s.ports.of(t, plan.Collector))
	for _, name := range plan.Services {
		link := servertest.NewProxy(t, s.ports.of(t, plan.NATS))
		link.SetTap(s.Wire.Listen)
		s.links[plan.To(name, plan.NATS)] = link
	}
	s.balancer = newBalancer(t, []string{s.ports.of(t, plan.Notifier1+" http"), s.ports.of(t, plan.Notifier2+" http")},
		[]string{s.ports.of(t, plan.Notifier1), s.ports.of(t, plan.Notifier2)})
	for _, name := range []string{plan.Alerter1, plan.Alerter2} {
		s.links[plan.To(name, plan.Redis)] = servertest.NewProxy(t, s.redis.Addr())
		s.links[plan.To(name, plan.Notifiers)] = servertest.NewProxyFunc(t, s.balancer.dial)
	}
	s.balancer.watch(t, s.links[plan.To(plan.Alerter1, plan.Notifiers)], s.links[plan.To(plan.Alerter2, plan.Notifiers)])
	s.node(plan.NATS, o.Programs.nats, "-c", s.write("nats.conf", s.natsConfig()))
	rules, routes := s.write("rules.yaml", model.Rules), s.write("routes.yml", s.routes())
	s.node(plan.Collector, o.Programs.collector, "--config", s.write("collector.yaml", s.collectorConfig()))
	for _, name := range []string{plan.Alerter1, plan.Alerter2} {
		s.node(name, o.Programs.alerter, "--config", s.write(name+".yaml", s.alerterConfig(name, rules)))
	}
	for _, name := range []string{plan.Notifier1, plan.Notifier2} {
		s.node(name, o.Programs.notifier, "--config", s.write(name+".yaml", s.notifierConfig(name, routes)))
	}
	for _, name := range append([]string{plan.NATS}, plan.Services...) {
		s.Restart(name)
	}
	return s
}

// node registers a process.
func (s *Stack) node(name, program string, args ...string) {
	s.t.Helper()
	log, err := os.Create(filepath.Join(s.opts.Dir, name+".log"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = log.Close() })
	s.nodes[name] = &node{program: program, args: args, log: log}
}

func (s *Stack) write(name, text string) (path string) {
	s.t.Helper()
	path = filepath.Join(s.opts.Dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// Restart starts a process that is not running.
func (s *Stack) Restart(name string) {
	s.t.Helper()
	if name == plan.Redis {
		s.redis.Start(s.t)
		return
	}
	n := s.nodes[name]
	_, _ = fmt.Fprintf(n.log, "--- started\n")
	n.running = process.StartLogged(s.t, n.log, n.program, []string{"RUNPOD_API_KEY=" + account.Key}, n.args...)
}

// Kill ends a process as a power cut would.
func (s *Stack) Kill(name string) {
	s.t.Helper()
	if name == plan.Redis {
		s.redis.Stop(s.t)
		return
	}
	n := s.nodes[name]
	n.running.Kill()
	n.running = nil
	_, _ = fmt.Fprintf(n.log, "--- killed\n")
}

// Pause freezes a process.
func (s *Stack) Pause(name string) {
	s.t.Helper()
	if name == plan.Redis {
		s.redis.Pause(s.t)
		return
	}
	s.nodes[name].running.Signal(syscall.SIGSTOP)
}

// Resume lets a frozen process go on.
func (s *Stack) Resume(name string) {
	s.t.Helper()
	if name == plan.Redis {
		s.redis.Resume(s.t)
		return
	}
	s.nodes[name].running.Signal(syscall.SIGCONT)
}

// Flush makes Redis forget everything.
func (s *Stack) Flush() {
	s.t.Helper()
	s.redis.FlushAll(s.t)
}

// MoveClock makes the wall clock of a process differ from the machine's.
func (s *Stack) MoveClock(name string, offset time.Duration) {
	s.t.Helper()
	c, err := clock.Of(s.nodes[name].running.PID())
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for {
		s.Pause(name)
		err := c.Move(offset)
		s.Resume(name)
		if err == nil {
			return
		}
		if !errors.Is(err, clock.ErrBusy) {
			s.t.Fatal(err)
		}
	}
}

// Link returns the proxy of a connection.
func (s *Stack) Link(name string) *servertest.Proxy {
	s.t.Helper()
	if s.links[name] == nil {
		s.t.Fatalf("no link is called %q", name)
	}
	return s.links[name]
}

// Stop stops the services as Ctrl-C does, and returns what was wrong with that.
func (s *Stack) Stop() (wrong []string) {
	s.t.Helper()
	for _, name := range plan.Services {
		if n := s.nodes[name]; n.running != nil {
			if code := n.running.Stop(); code != 0 {
				wrong = append(wrong, fmt.Sprintf("%s ended with code %d when it was stopped, want 0", name, code))
			}
		}
	}
	return wrong
}

// Printed returns what a process printed so far, in all its lives.
func (s *Stack) Printed(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(s.nodes[name].log.Name())
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// Dump ends the services and has them print what each of their goroutines did.
func (s *Stack) Dump() {
	s.t.Helper()
	for _, name := range plan.Services {
		if n := s.nodes[name]; n.running != nil {
			n.running.Signal(syscall.SIGQUIT)
			n.running.Wait()
		}
	}
}

// Ended lists the processes that ended though nobody ended them.
func (s *Stack) Ended() (ended []string) {
	for name, n := range s.nodes {
		if n.running != nil && n.running.Ended() {
			ended = append(ended, name)
		}
	}
	slices.Sort(ended)
	return ended
}
