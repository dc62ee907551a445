package bus

import (
	"errors"
	"fmt"

	"github.com/tocsin-dev/tocsin/internal/secret"
)

// Config is the section "nats" of a service's configuration.
type Config struct {
	// URL is the server's address, or several separated by commas.
	URL string `yaml:"url"`
	// User and Password log in. Empty means that the server asks for neither.
	User     string        `yaml:"user"`
	Password secret.String `yaml:"password"`
	// PasswordFile is a file that holds the password, in place of Password.
	PasswordFile string `yaml:"password_file"`
	// Replicas is on how many servers streams and buckets are kept when they are
	// made; 0 stands for 1.
	Replicas int `yaml:"replicas"`
}

// DefaultConfig returns a server at its usual address on this machine.
func DefaultConfig() Config { return Config{URL: DefaultURL} }

// Validate returns every mistake at once, each by its key, but those of the
// password's file, which Apply returns.
func (c *Config) Validate() error {
	var errs []error
	if c.URL == "" {
		errs = append(errs, errors.New("url: it is empty"))
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		errs = append(errs, fmt.Errorf("replicas: %d is not between 0 and 5", c.Replicas))
	}
	return errors.Join(errs...)
}

// Apply copies the section into o. It returns an error when the password's file
// cannot be used; the rest is copied all the same.
func (c *Config) Apply(o *Options) error {
	password, err := secret.Resolve("nats.password", c.Password, c.PasswordFile)
	o.URL, o.User, o.Password, o.Replicas = c.URL, c.User, password, c.Replicas
	return err
}
