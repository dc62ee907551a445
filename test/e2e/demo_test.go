package e2e

import (
	"testing"
)

func TestDemo(t *testing.T) {
	data := t.TempDir()
	first := start(t, nil, "demo", "--data", data)
	for _, alert := range []string{"CrashLoop", "NoCapacity", "EndpointDisabled", "RunPodAPIDown", "RunPodKeyRejected"} {
		first.waitFor(0, "FIRING", alert)
		first.waitFor(0, "RESOLVED", alert)
	}
	if code := first.stop(); code != 0 {
		t.Fatalf("Ctrl-C ended it with code %d, want 0", code)
	}

	second := start(t, nil, "demo", "--data", data)
	second.waitFor(0, "FIRING")
	if code := second.stop(); code != 0 {
		t.Fatalf("Ctrl-C ended the second start with code %d, want 0", code)
	}
}
