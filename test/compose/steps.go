package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rule is the demo's rule whose alerts are waited for: at demoSpeed one fires for
// about 7 s in every 40.
const rule = "EndpointDisabled"

// demoSpeed is how many seconds pass in one in the simulated account.
const demoSpeed = "60"

// killed are the containers that are killed, in turn: those that hold state first.
var killed = []string{"nats", "redis", "alerter", "notifier", "collector", "receiver", "simulator"}

// restartLimit is how often a container may start again by itself before it is
// said not to work.
const restartLimit = 4

// ports are where the APIs are published, by their variables in .env.
type ports map[string]string

func (t *trial) secrets() string { return filepath.Join(t.dir, "secrets") }
func (t *trial) envFile() string { return filepath.Join(t.dir, "env") }

// configure does what README.md tells a person to do, with other ports.
func (t *trial) configure(ctx context.Context) error {
	if _, err := output(ctx, nil, filepath.Join(t.root, "deploy", "new-secrets"), t.secrets()); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(t.root, "deploy", ".env.example"))
	if err != nil {
		return err
	}
	values := map[string]string{
		"TOCSIN_SECRETS": t.secrets(), "COMPOSE_PROJECT_NAME": t.name, "TOCSIN_TAG": t.name,
		"TOCSIN_DEMO_SPEED": demoSpeed, "TOCSIN_NATS_MAX_STORE": "1GB",
	}
	t.ports = ports{}
	for name := range strings.SplitSeq(string(text), "\n") {
		if name, _, ok := strings.Cut(name, "="); ok && strings.HasSuffix(name, "_PORT") {
			if t.ports[name], err = freePort(); err != nil {
				return err
			}
			values[name] = t.ports[name]
		}
	}
	env, err := setEach(string(text), values)
	if err != nil {
		return err
	}
	return os.WriteFile(t.envFile(), []byte(env), 0o600)
}

// setEach sets variables in the text of an environment file, which must have them.
func setEach(text string, values map[string]string) (string, error) {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		name, _, ok := strings.Cut(line, "=")
		if value, wanted := values[name]; ok && wanted {
			lines[i] = name + "=" + value
			delete(values, name)
		}
	}
	if len(values) > 0 {
		return "", fmt.Errorf(".env.example lacks %v", values)
	}
	return strings.Join(lines, "\n"), nil
}

func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = ln.Close() }() // nothing was served
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return port, err
}

// refused starts the stack with .env.example as it is.
func (t *trial) refused(ctx context.Context) error {
	_, err := t.composeWith(ctx, filepath.Join("deploy", ".env.example"), "config", "--quiet")
	if err == nil {
		return errors.New("compose takes a configuration without secrets")
	}
	if !strings.Contains(err.Error(), "run deploy/new-secrets") {
		return fmt.Errorf("compose does not say what to do: %w", err)
	}
	return nil
}

// up starts the stack and waits until all of it is healthy.
func (t *trial) up(ctx context.Context) error {
	if _, err := t.compose(ctx, "up", "--detach", "--no-build"); err != nil {
		return err
	}
	err := until(ctx, "every container is healthy", func(ctx context.Context) (bool, error) {
		all, _, err := t.containers(ctx)
		if err != nil {
			return false, err
		}
		ready := true
		for name, c := range all {
			switch {
			case name == "nats-volume": // has done its work and ended
				if !c.State.Running && c.State.ExitCode != 0 {
					return false, fmt.Errorf("%s ended with code %d", name, c.State.ExitCode)
				}
			case c.RestartCount >= restartLimit:
				return false, fmt.Errorf("%s was started %d times and does not stay", name, c.RestartCount)
			default:
				ready = ready && c.ready()
			}
		}
		return ready && len(all) == len(killed)+1, nil
	})
	if err != nil {
		return err
	}
	t.say("all containers are healthy")
	return nil
}

// killEach kills each container while an alert fires and waits for its end, and
// for another alert.
func (t *trial) killEach(ctx context.Context) error {
	a, err := t.fires(ctx, nil)
	if err != nil {
		return err
	}
	t.say("an alert was told: %s of %s", rule, a.Labels["endpoint_id"])
	for _, name := range killed {
		known := t.ledger.last()
		began := time.Now()
		if err := t.kill(ctx, name); err != nil {
			return fmt.Errorf("kill %s: %w", name, err)
		}
		back := time.Since(began)
		if err := t.resolves(ctx, a); err != nil {
			return fmt.Errorf("after %s was killed: %w", name, err)
		}
		resolved := time.Since(began)
		if a, err = t.fires(ctx, known); err != nil {
			return fmt.Errorf("after %s was killed: %w", name, err)
		}
		t.say("%-9s killed while an alert fired: healthy again after %4.1f s, its resolution told after %4.1f s, a further alert after %4.1f s",
			name, back.Seconds(), resolved.Seconds(), time.Since(began).Seconds())
	}
	t.fired = a
	return nil
}

// fires waits for an alert of which nothing is known and that fires now.
func (t *trial) fires(ctx context.Context, known map[string]alert) (a alert, err error) {
	err = until(ctx, "a further alert is told", func(ctx context.Context) (ok bool, err error) {
		if err := t.readLedger(ctx); err != nil {
			return false, err
		}
		a, ok = t.ledger.firing(rule, known)
		return ok, nil
	})
	return a, err
}

// resolves waits until an alert was told as resolved.
func (t *trial) resolves(ctx context.Context, a alert) error {
	return until(ctx, "the alert that fired is told as resolved", func(ctx context.Context) (bool, error) {
		err := t.readLedger(ctx)
		return t.ledger.last()[a.ID].Status == "resolved", err
	})
}

// readLedger reads the receiver's log.
func (t *trial) readLedger(ctx context.Context) error {
	all, _, err := t.containers(ctx)
	if err != nil {
		return err
	}
	log, err := t.engine.docker(ctx, "logs", all["receiver"].ID)
	if err != nil {
		return err
	}
	return t.ledger.read(log)
}

// kill kills the process of a container as a crash would, so that its restart
// policy has to start it again ("docker kill" counts as a person's wish), and
// waits until it is healthy. The killer is a container too: the engine may be on
// another machine than this.
func (t *trial) kill(ctx context.Context, name string) error {
	all, _, err := t.containers(ctx)
	if err != nil {
		return err
	}
	before := all[name]
	if before.State.Pid == 0 {
		return errors.New("it does not run")
	}
	_, err = t.engine.docker(ctx, "run", "--rm", "--pid=host", "--network=none", "--user=0:0", "--cap-drop=ALL", "--cap-add=KILL",
		"--entrypoint=/bin/kill", t.natsTag, "-9", strconv.Itoa(before.State.Pid))
	if err != nil {
		return err
	}
	return until(ctx, "it is healthy again", func(ctx context.Context) (bool, error) {
		all, _, err := t.containers(ctx)
		if err != nil {
			return false, err
		}
		now := all[name]
		if now.RestartCount > before.RestartCount+1 {
			return false, fmt.Errorf("it was started again %d times", now.RestartCount-before.RestartCount)
		}
		return now.RestartCount == before.RestartCount+1 && now.ready() && now.State.StartedAt.After(before.State.StartedAt), nil
	})
}

// again stops the stack while an alert fires, removes its containers, and starts
// it anew: only the volume is left.
func (t *trial) again(ctx context.Context) error {
	if err := t.logsAreClean(ctx); err != nil { // the containers go, and their logs with them
		return err
	}
	if _, err := t.compose(ctx, "stop"); err != nil {
		return err
	}
	all, _, err := t.containers(ctx)
	if err != nil {
		return err
	}
	for name, c := range all {
		if c.State.ExitCode != 0 && slices.Contains([]string{"collector", "alerter", "notifier", "receiver", "simulator"}, name) {
			return fmt.Errorf("%s was asked to stop and ended with code %d", name, c.State.ExitCode)
		}
	}
	if err := t.readLedger(ctx); err != nil {
		return err
	}
	t.ledger.turn()
	if _, err := t.compose(ctx, "down"); err != nil {
		return err
	}
	if err := t.up(ctx); err != nil {
		return err
	}
	known := t.ledger.last()
	if err := t.resolves(ctx, t.fired); err != nil {
		return err
	}
	next, err := t.fires(ctx, known)
	if err != nil {
		return err
	}
	return t.resolves(ctx, next)
}

// judge looks at all that was told and logged.
func (t *trial) judge(ctx context.Context) error {
	if told := t.ledger.told(rule); told < len(killed)+2 {
		return fmt.Errorf("%d alerts of %s were told, want at least %d", told, rule, len(killed)+2)
	}
	return errors.Join(t.ledger.check(), t.logsAreClean(ctx))
}

// logsAreClean looks for secrets in all logs, and in that of NATS for what it
// refused.
func (t *trial) logsAreClean(ctx context.Context) error {
	all, _, err := t.containers(ctx)
	if err != nil {
		return err
	}
	secrets, err := t.readSecrets()
	if err != nil {
		return err
	}
	var errs []error
	for name, c := range all {
		log, err := exec.CommandContext(ctx, "docker", "logs", c.ID).CombinedOutput()
		if err != nil {
			return fmt.Errorf("read the log of %s: %w", name, err)
		}
		errs = append(errs, absent("the log of "+name, string(log), secrets))
		for line := range strings.SplitSeq(string(log), "\n") {
			if name == "nats" && strings.Contains(line, "Violation") {
				errs = append(errs, fmt.Errorf("NATS refused: %s", line))
			}
		}
		if c.State.OOMKilled {
			errs = append(errs, fmt.Errorf("%s ran out of memory", name))
		}
	}
	return errors.Join(errs...)
}
