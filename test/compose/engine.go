package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// engineTimeout bounds the first question to an engine.
const engineTimeout = 20 * time.Second

// engine is a Docker Engine and the programs that talk to it.
type engine struct {
	version, arch  string // such as 28.2.2 and amd64
	compose        []string
	composeVersion string
}

const noEngine = `no Docker Engine answers: %s
Start yours and run this again. Or, on Debian or Ubuntu as root, let one be installed and
run for this command alone:
    test/engine make compose-test`

const noCompose = `there is no Docker Compose: neither "docker compose" nor "docker-compose" runs.
Install it (Debian: apt-get install docker-compose) and run this again`

// findEngine returns the engine that the docker command reaches. Its error says
// how to come by one.
func findEngine(ctx context.Context) (*engine, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	e := new(engine)
	out, err := e.docker(ctx, "version", "--format", "{{.Server.Version}} {{.Server.Os}} {{.Server.Arch}}")
	parts := strings.Fields(out)
	switch {
	case err != nil:
		return nil, fmt.Errorf(noEngine, err)
	case len(parts) != 3:
		return nil, fmt.Errorf(noEngine, "it says "+out)
	case parts[1] != "linux":
		return nil, fmt.Errorf("the Docker Engine runs %s containers, and these are linux ones", parts[1])
	}
	e.version, e.arch = parts[0], parts[2]
	for _, command := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		out, err := output(ctx, nil, command[0], append(command[1:], "version", "--short")...)
		if err == nil {
			e.compose = command
			e.composeVersion = strings.Join(command, " ") + " " + strings.TrimSpace(out)
			return e, nil
		}
	}
	return nil, errors.New(noCompose)
}

// docker runs a docker command and returns what it printed.
func (e *engine) docker(ctx context.Context, args ...string) (string, error) {
	return output(ctx, nil, "docker", args...)
}

// output runs a program in an environment (nil: this one) and returns its
// standard output. The error holds what it printed as errors.
func output(ctx context.Context, env []string, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = env
	// Ctrl-C is for this program, which then takes down what it started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		said := strings.TrimSpace(errs.String())
		if said == "" {
			said = strings.TrimSpace(out.String())
		}
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, said)
	}
	return out.String(), nil
}

// compose runs a compose command on the trial's project. Nothing of the caller's
// settings reaches it, only what a program needs to run and to find the engine.
func (t *trial) compose(ctx context.Context, args ...string) (string, error) {
	return t.composeWith(ctx, t.envFile(), args...)
}

func (t *trial) composeWith(ctx context.Context, envFile string, args ...string) (string, error) {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	for _, name := range []string{"DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "XDG_RUNTIME_DIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	all := append([]string{}, t.engine.compose[1:]...)
	all = append(all, "-f", "deploy/compose.yaml", "-f", "test/compose/override.yaml", "--env-file", envFile, "-p", t.name)
	return output(ctx, env, t.engine.compose[0], append(all, args...)...)
}

// container is what "docker inspect" says of one.
type container struct {
	ID    string `json:"Id"`
	Image string
	State struct {
		Running   bool
		OOMKilled bool
		Pid       int
		ExitCode  int
		StartedAt time.Time
		Health    struct{ Status string }
	}
	RestartCount int
	HostConfig   struct {
		ReadonlyRootfs bool
		Memory         int64
		PidsLimit      int64
		Privileged     bool
		CapDrop        []string
		CapAdd         []string
		SecurityOpt    []string
		RestartPolicy  struct{ Name string }
		PortBindings   map[string][]struct{ HostIP, HostPort string } `json:"PortBindings"`
	}
	Config struct {
		User   string
		Image  string
		Labels map[string]string
	}
}

// service is the container's name in compose.yaml.
func (c container) service() string { return c.Config.Labels["com.docker.compose.service"] }

// ready tells whether it runs and its health check says so.
func (c container) ready() bool { return c.State.Running && c.State.Health.Status == "healthy" }

// containers returns the project's containers by service, those that ended
// included, and the text that "docker inspect" shows of them.
func (t *trial) containers(ctx context.Context) (map[string]container, string, error) {
	ids, err := t.engine.docker(ctx, "ps", "--all", "--quiet", "--no-trunc", "--filter", "label=com.docker.compose.project="+t.name)
	if err != nil {
		return nil, "", err
	}
	if len(strings.Fields(ids)) == 0 {
		return nil, "", errors.New("there are no containers")
	}
	text, err := t.engine.docker(ctx, append([]string{"inspect"}, strings.Fields(ids)...)...)
	if err != nil {
		return nil, "", err
	}
	var list []container
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, "", fmt.Errorf("read docker inspect: %w", err)
	}
	all := map[string]container{}
	for _, c := range list {
		all[c.service()] = c
	}
	return all, text, nil
}

// The end of a log that is shown of a container, and how much of a line, in bytes.
const (
	shownLines = 15
	shownWidth = 400
)

// showLogs prints the end of each container's log.
func (t *trial) showLogs(ctx context.Context) {
	all, _, err := t.containers(ctx)
	if err != nil {
		return // nothing was started
	}
	for name, c := range all {
		cmd := exec.CommandContext(ctx, "docker", "logs", "--tail", strconv.Itoa(shownLines), c.ID)
		out, _ := cmd.CombinedOutput() // as much as there is
		fmt.Fprintf(os.Stderr, "---- %s (running %t, exit code %d, health %q)\n", name, c.State.Running, c.State.ExitCode, c.State.Health.Status)
		for line := range strings.Lines(string(out)) {
			line = strings.TrimSuffix(line, "\n")
			fmt.Fprintln(os.Stderr, line[:min(len(line), shownWidth)])
		}
	}
}
