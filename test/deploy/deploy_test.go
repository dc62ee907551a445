// Package deploy runs what lies in deploy/ without containers: its NATS and Redis
// configuration with real servers, its secrets, and the environment that
// compose.yaml gives the services. test/compose runs it in containers.
package deploy

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/tocsin-dev/tocsin/test/internal/process"
)

// folder is deploy/ as a test sees it.
const folder = "../../deploy"

func TestMain(m *testing.M) { os.Exit(process.Main(m)) }

// stack is what compose.yaml starts, as processes on loopback.
type stack struct {
	dir     string // a copy of deploy/
	secrets string // the folder that new-secrets made
	nats    *process.Process
	redis   *process.Process

	natsURL, redisSocket string
	env                  map[string][]string // of each service
	programs             map[string]string   // of each service
}

// newStack copies deploy/, makes secrets and starts NATS and Redis.
func newStack(t *testing.T) *stack {
	t.Helper()
	s := &stack{dir: t.TempDir(), secrets: filepath.Join(t.TempDir(), "secrets"), programs: map[string]string{}}
	if err := os.CopyFS(s.dir, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(s.dir, "new-secrets"), s.secrets).CombinedOutput(); err != nil {
		t.Fatalf("new-secrets: %v\n%s", err, out)
	}
	// The test has a user of its own in Redis, which may read what was refused.
	users, err := os.OpenFile(filepath.Join(s.dir, "redis", "users.acl"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer users.Close()
	if _, err := fmt.Fprintln(users, "user test on nopass -@all +acl|log"); err != nil {
		t.Fatal(err)
	}
	s.startNATS(t)
	s.startRedis(t)
	return s
}

var listens = regexp.MustCompile(`Listening for client connections on (127\.0\.0\.1:[0-9]+)`)

// startNATS runs deploy/nats/start.sh on a free port, with a directory of its own.
func (s *stack) startNATS(t *testing.T) {
	t.Helper()
	conf := filepath.Join(s.dir, "nats", "nats.conf")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	// The one setting that the command line cannot change.
	if err := os.WriteFile(conf, []byte(strings.Replace(string(text), "store_dir: /data", "store_dir: "+t.TempDir(), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	server := process.BuildPackage(t, "nats-server", "github.com/nats-io/nats-server/v2")
	s.nats = process.StartProgram(t, filepath.Join(s.dir, "nats", "start.sh"), []string{
		"SECRETS=" + s.secrets, "MAX_STORE=2GB", "PATH=" + filepath.Dir(server) + ":" + os.Getenv("PATH"),
	}, "--addr", "127.0.0.1", "--port", "-1", "--http_port", "-1")
	line := s.nats.WaitFor(0, "Listening for client connections")
	s.natsURL = "nats://" + listens.FindStringSubmatch(line)[1]
	s.nats.WaitFor(0, "Server is ready")
}

// startRedis runs deploy/redis/start.sh on a socket.
func (s *stack) startRedis(t *testing.T) {
	t.Helper()
	// A socket's path may have 108 bytes at most.
	dir, err := os.MkdirTemp("", "redis") //nolint:usetesting // t.TempDir of a long name exceeds them
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // the system clears what is left
	s.redisSocket = filepath.Join(dir, "s")
	s.redis = process.StartProgram(t, filepath.Join(s.dir, "redis", "start.sh"), []string{"SECRETS=" + s.secrets, "TMPDIR=" + dir},
		"--port", "0", "--unixsocket", s.redisSocket, "--dir", dir)
	s.redis.WaitFor(0, "ready to accept connections at")
}

// cli sends Redis a command as a user and returns the answer.
func (s *stack) cli(t *testing.T, user, password string, command ...string) string {
	t.Helper()
	args := append([]string{"-s", s.redisSocket, "--no-auth-warning"}, command...)
	if user != "" {
		args = append([]string{"--user", user, "--pass", password}, args...)
	}
	out, err := exec.Command("redis-cli", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("redis-cli %s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// secret returns the content of a secret's file.
func (s *stack) secret(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.secrets, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// configure prepares the services: the configuration in a folder of deploy/, and
// the environment of compose.yaml, each with other names and paths than in a
// container. Further replacements are pairs of old and new.
func (s *stack) configure(t *testing.T, config string, further ...string) {
	t.Helper()
	etc := filepath.Join(s.dir, config)
	replace := strings.NewReplacer(append(further,
		"nats://nats:4222", s.natsURL, "redis:6379", s.redisSocket, "notifier:9092", freeAddress(t),
		"/run/secrets/", s.secrets+"/", "/run/receivers/", filepath.Join(s.secrets, "receivers")+"/", "/etc/tocsin/", etc+"/",
	)...)
	files, err := os.ReadDir(etc)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		path := filepath.Join(etc, f.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(replace.Replace(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.env = map[string][]string{}
	// The alerter finds the notifier at the address that it was given above.
	notifierGRPC := replace.Replace("notifier:9092")
	for name, service := range readCompose(t).Services {
		for key, value := range service.Environment {
			value = replace.Replace(value)
			if strings.HasPrefix(value, "0.0.0.0:") {
				value = freeAddress(t)
			}
			if key == "TOCSIN_NOTIFIER_GRPC_ADDRESS" {
				value = notifierGRPC
			}
			s.env[name] = append(s.env[name], key+"="+value)
		}
	}
}

// start starts a service as compose.yaml does and waits until it is ready.
func (s *stack) start(t *testing.T, name, config string) *process.Process {
	t.Helper()
	if s.programs[name] == "" {
		s.programs[name] = process.Build(t, "services/"+name+"/cmd/"+name)
	}
	p := process.StartProgram(t, s.programs[name], s.env[name], "--config", filepath.Join(s.dir, config, "tocsin.yaml"))
	p.WaitFor(0, name+" ready")
	return p
}

// health runs a service's own health check and returns what it says.
func (s *stack) health(t *testing.T, name, config string) string {
	t.Helper()
	cmd := exec.Command(s.programs[name], "healthcheck", "--config", filepath.Join(s.dir, config, "tocsin.yaml"))
	cmd.Env = s.env[name]
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return string(out)
}

// compose is what the tests read of compose.yaml.
type compose struct {
	Services map[string]service `yaml:"services"`
}

type service struct {
	User        string            `yaml:"user"`
	ReadOnly    bool              `yaml:"read_only"`
	CapDrop     []string          `yaml:"cap_drop"`
	CapAdd      []string          `yaml:"cap_add"`
	SecurityOpt []string          `yaml:"security_opt"`
	Restart     string            `yaml:"restart"`
	PIDs        int               `yaml:"pids_limit"`
	Memory      string            `yaml:"mem_limit"`
	Ports       []string          `yaml:"ports"`
	Environment map[string]string `yaml:"environment"`
	Healthcheck map[string]any    `yaml:"healthcheck"`
	Profiles    []string          `yaml:"profiles"`
}

func readCompose(t *testing.T) compose {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c compose
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Services) == 0 {
		t.Fatal("compose.yaml has no services")
	}
	return c
}

// freeAddress returns an address of loopback that nothing listens on now.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
