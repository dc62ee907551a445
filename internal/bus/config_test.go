package bus_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/bus"
)

func TestConfig(t *testing.T) {
	c := bus.DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	bad := bus.Config{Password: "a", PasswordFile: "b", Replicas: 9}
	want := "url: it is empty\nreplicas: 9 is not between 0 and 5"
	if err := bad.Validate(); err == nil || err.Error() != want {
		t.Errorf("got %v, want\n%s", err, want)
	}
	want = "nats.password: set here and by nats.password_file: keep one of them"
	if err := bad.Apply(&bus.Options{}); err == nil || err.Error() != want {
		t.Errorf("got %v, want\n%s", err, want)
	}
}

func TestConfigReadsThePasswordsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := bus.Config{URL: "nats://there:4222", User: "me", PasswordFile: file, Replicas: 3}
	o := bus.Options{Name: "kept"}
	if err := c.Apply(&o); err != nil {
		t.Fatal(err)
	}
	if o.Name != "kept" || o.URL != c.URL || o.User != "me" || o.Password.Reveal() != "hunter2" || o.Replicas != 3 {
		t.Errorf("got %+v", o)
	}
	c.PasswordFile = file + ".missing"
	if err := c.Apply(&o); err == nil {
		t.Error("a missing file was taken")
	}
}
