package e2e

import (
	"testing"

	"github.com/tocsin-dev/tocsin/test/internal/process"
)

func TestDemo(t *testing.T) {
	data := t.TempDir()
	first := process.Start(t, nil, "demo", "--data", data)
	for _, alert := range []string{"CrashLoop", "NoCapacity", "EndpointDisabled", "RunPodAPIDown", "RunPodKeyRejected"} {
		first.WaitFor(0, "FIRING", alert)
		first.WaitFor(0, "RESOLVED", alert)
	}
	if code := first.Stop(); code != 0 {
		t.Fatalf("Ctrl-C ended it with code %d, want 0", code)
	}

	second := process.Start(t, nil, "demo", "--data", data)
	second.WaitFor(0, "FIRING")
	if code := second.Stop(); code != 0 {
		t.Fatalf("Ctrl-C ended the second start with code %d, want 0", code)
	}
}
