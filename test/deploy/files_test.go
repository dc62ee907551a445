package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestEveryContainerIsHeldToTheSame looks at compose.yaml as it is written;
// test/compose looks at the containers.
func TestEveryContainerIsHeldToTheSame(t *testing.T) {
	for name, s := range readCompose(t).Services {
		once := name == "nats-volume" // gives the volume to NATS's user, and ends
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
			t.Errorf("%s: its root is writable, or it has capabilities, or can get some", name)
		}
		if s.Memory == "" || s.PIDs == 0 {
			t.Errorf("%s: memory or processes are not bounded", name)
		}
		switch {
		case once && (s.User != "0:0" || !slices.Equal(s.CapAdd, []string{"CHOWN"}) || s.Restart != "no"):
			t.Errorf("%s: it may more than change the owner once", name)
		case !once && (s.User != "65532:65532" || len(s.CapAdd) > 0 || s.Restart != "unless-stopped" || s.Healthcheck["test"] == nil):
			t.Errorf("%s: it runs as root, has a capability, is not started again, or has no health check", name)
		}
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s: %s is open to other machines", name, port)
			}
		}
		for key, value := range s.Environment {
			secret := strings.Contains(key, "PASSWORD") || strings.Contains(key, "TOKEN") || strings.Contains(key, "KEY")
			if secret && !strings.HasPrefix(value, "/run/secrets/") {
				t.Errorf("%s: %s is shown by docker inspect", name, key)
			}
		}
	}
}

func TestTheExampleEnvironmentNamesEveryVariable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(folder, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile(filepath.Join(folder, ".env.example"))
	if err != nil {
		t.Fatal(err)
	}
	used := 0
	for _, part := range strings.Split(string(text), "${")[1:] {
		name := part[:strings.IndexAny(part, ":}")]
		used++
		if !strings.Contains(string(example), "\n"+name+"=") {
			t.Errorf(".env.example does not say %s", name)
		}
		// Both say the default, but for those that must or may be empty.
		if rest, ok := strings.CutPrefix(part[len(name):], ":-"); ok && name != "TOCSIN_CONFIG" {
			if value := rest[:strings.Index(rest, "}")]; !strings.Contains(string(example), "\n"+name+"="+value+"\n") {
				t.Errorf(".env.example has another value for %s than the default %s", name, value)
			}
		}
	}
	if used < 10 {
		t.Errorf("compose.yaml uses %d variables", used)
	}
}

// TestTheRoutesForAnAccountAreTheDefaultOnes keeps the inhibitions of
// deploy/config with the rules that they are written for.
func TestTheRoutesForAnAccountAreTheDefaultOnes(t *testing.T) {
	read := func(path string) (routes map[string]any) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(text, &routes); err != nil {
			t.Fatal(err)
		}
		return routes
	}
	have := read(filepath.Join(folder, "config", "alertmanager.yml"))
	want := read(filepath.Join(folder, "..", "services", "notifier", "internal", "settings", "default.yml"))
	if len(want) == 0 || !reflect.DeepEqual(have, want) {
		t.Errorf("deploy/config/alertmanager.yml has\n%v\nthe notifier's default is\n%v", have, want)
	}
}

// TestTheConfigurationForAnAccountIsGood starts the services with deploy/config.
func TestTheConfigurationForAnAccountIsGood(t *testing.T) {
	s := newStack(t)
	s.configure(t, "config")
	for _, name := range []string{"notifier", "alerter"} {
		s.start(t, name, "config")
	}
}

func TestNewSecrets(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	for _, made := range []string{".env", "secrets"} { // of whoever works here
		if err := os.RemoveAll(filepath.Join(dir, made)); err != nil {
			t.Fatal(err)
		}
	}
	run := func(env ...string) string {
		cmd := exec.Command(filepath.Join(dir, "new-secrets"))
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("new-secrets: %v\n%s", err, out)
		}
		return string(out)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}

	said := run()
	if env := read(".env"); !strings.Contains(env, "\nTOCSIN_SECRETS=./secrets\n") {
		t.Errorf("deploy/.env does not name the secrets:\n%s", env)
	}
	if info, err := os.Stat(filepath.Join(dir, "secrets")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of secrets: %v, %v; want nobody else in it", info.Mode(), err)
	}
	seen := map[string]string{}
	files, err := filepath.Glob(filepath.Join(dir, "secrets", "*_*"))
	if err != nil || len(files) < 8 {
		t.Fatalf("%d secrets, %v", len(files), err)
	}
	for _, path := range append(files, filepath.Join(dir, "secrets", "receivers", "webhook_secret")) {
		name := strings.TrimPrefix(path, dir+"/")
		text := read(name)
		if len(text) < 40 {
			t.Errorf("%s is short: %d characters", name, len(text))
		}
		if other, ok := seen[text]; ok {
			t.Errorf("%s is the same as %s", name, other)
		}
		seen[text] = name
		// The containers have users of their own.
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	for text, name := range seen {
		if strings.Contains(said, text) {
			t.Errorf("new-secrets shows %s", name)
		}
	}
	before := read("secrets/nats_alerter")
	if said = run("RUNPOD_API_KEY=rpa_MINE"); strings.Contains(said, "rpa_MINE") {
		t.Error("it shows the key")
	}
	if read("secrets/runpod_api_key") != "rpa_MINE" || read("secrets/nats_alerter") != before {
		t.Error("a second run changed a password, or did not take the key")
	}
	if err := os.Remove(filepath.Join(dir, "secrets", "nats_alerter")); err != nil {
		t.Fatal(err)
	}
	run()
	if now := read("secrets/nats_alerter"); now == before || now == "" {
		t.Error("a password that was removed did not become a new one")
	}
	if read("secrets/runpod_api_key") != "rpa_MINE" {
		t.Error("the key that was given is gone")
	}
}
