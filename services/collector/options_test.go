package collector_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/secret"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheDefaultsAreValid(t *testing.T) {
	o := collector.DefaultOptions()
	if err := errors.Join(o.Collector.Validate(), o.RunPod.Validate()); err != nil {
		t.Error(err)
	}
}

func TestEveryMistakeIsNamedAtOnce(t *testing.T) {
	file := write(t, "tocsin.yaml", `
runpod:
  account: "a b"
collector:
  http_address: 0.0.0.0:8083
  health_interval: 1ms
  max_concurrent: 1
  max_targets: 0
  webhook_secret: a
  webhook_secret_file: b
  healthinterval: 3s
`)
	o := collector.DefaultOptions()
	err := proc.Load(file, nil, map[string]any{"runpod": &o.RunPod, "collector": &o.Collector}, func() error { return o.Check() })
	if !proc.IsUsage(err) {
		t.Fatalf("error is %v, want one of usage", err)
	}
	for _, want := range []string{
		"tocsin.yaml:3:", "runpod.account:", "tocsin.yaml:5:", "collector.http_address:", "collector.token_file",
		"collector.health_interval: 1ms is not between", "collector.max_concurrent: 1 is not between",
		"collector.max_targets: 0 is not between 1 and 100000",
		"tocsin.yaml:9:19: collector.webhook_secret: set here and by collector.webhook_secret_file", "healthinterval",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
}

func TestRunNamesMistakesOfOptionsWithTheirSection(t *testing.T) {
	o := collector.DefaultOptions()
	o.Getenv = func(string) string { return "" }
	o.RunPod.Account = ""
	o.Collector.Timeout, o.Collector.JobInterval = 0, 0
	err := collector.Run(t.Context(), o)
	if !proc.IsUsage(err) {
		t.Fatalf("error is %v, want one of usage", err)
	}
	for _, want := range []string{"runpod.account:", "collector.timeout:", "collector.job_interval:", "RUNPOD_API_KEY"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
}

func TestWhereTheKeyComesFrom(t *testing.T) {
	file := write(t, "key", "from-the-file\n")
	env := func(string) string { return " from-the-environment " }
	none := func(string) string { return "" }
	for name, test := range map[string]struct {
		config collector.RunPodConfig
		getenv func(string) string
		want   secret.String
		err    error
	}{
		"the configuration goes first": {collector.RunPodConfig{APIKey: "from-the-configuration"}, env, "from-the-configuration", nil},
		"then its file":                {collector.RunPodConfig{APIKeyFile: file}, env, "from-the-file", nil},
		"then the environment":         {collector.RunPodConfig{}, env, "from-the-environment", nil},
		"none is told":                 {collector.RunPodConfig{}, none, "", collector.ErrNoKey},
		"a file that is not there":     {collector.RunPodConfig{APIKeyFile: file + "x"}, env, "", os.ErrNotExist},
	} {
		got, err := test.config.Key(test.getenv)
		if got.Reveal() != test.want.Reveal() || !errors.Is(err, test.err) {
			t.Errorf("%s: key %q, %v", name, got.Reveal(), err)
		}
	}
}

func TestOptionsDoNotPrintSecrets(t *testing.T) {
	o := collector.DefaultOptions()
	o.RunPod.APIKey, o.Collector.Token, o.Collector.WebhookSecret = "canary-1", "canary-2", "canary-3"
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, o); strings.Contains(text, "canary") {
			t.Errorf("%s shows a secret: %s", format, text)
		}
	}
}

func TestALogWithOtherSettingsIsNotChanged(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	other := bus.Events(0)
	other.MaxAge = time.Hour
	if _, err := n.Conn(t).EnsureStream(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	err := collector.Run(t.Context(), options(f, n))
	if mismatch, ok := errors.AsType[*bus.MismatchError](err); !ok || len(mismatch.Settings) == 0 {
		t.Errorf("error is %v, want the setting that differs", err)
	}
}

func TestAPortThatIsTakenIsNamed(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	c := start(t, options(f, n))
	o := options(f, n)
	o.Collector.GRPCAddress = c.GRPC.String()
	if err := collector.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "collector.grpc_address") {
		t.Errorf("error is %v, want the name of the setting", err)
	}
}

func TestEventsOfAnotherAccountAreLeftAlone(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	log := follow(t, n.Conn(t))
	c := start(t, options(f, n))
	log.wait(t, "health", 0, health)
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	before := log.len()
	o := options(f, n)
	o.RunPod.Account = "second"
	start(t, o)
	found := log.wait(t, "a discovery of the second account", before, func(e *eventv1.Event) bool { return e.GetTargetDiscovered() != nil })
	if event.Token(found.GetTarget()) != "second-endpoint-ep1" {
		t.Errorf("discovered %v", found.GetTarget())
	}
	beaten := log.wait(t, "its heartbeat", before, beat)
	if got := beaten.GetAccountPolled().GetTargets(); got != 1 {
		t.Errorf("the second account has %d targets, want its own one", got)
	}
}
