package notifier

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/secret"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/courier"
)

const (
	// defaultGRPCAddress serves NotifierService.
	defaultGRPCAddress = "127.0.0.1:9092"
	// defaultHTTPAddress serves metrics and health. It is not 9093, where an
	// Alertmanager may run.
	defaultHTTPAddress = "127.0.0.1:9193"
	// defaultInhibitionHold covers a few polls in which symptoms clear one by
	// one after their cause. Alertmanager waits for the next group_interval.
	defaultInhibitionHold = 10 * time.Second
	// minJournalBytes lets an eighth of the journal, after which a snapshot is taken,
	// hold 4,000 messages and their results.
	minJournalBytes = 64 << 20
	// maxInhibitionHold keeps a mistake from hiding alerts for good.
	maxInhibitionHold = time.Hour
)

// Config is the section "notifier" of the configuration.
type Config struct {
	// ConfigFile is a file in Alertmanager's format that names the routes and
	// the receivers. Empty means the default routes, whose only receiver prints.
	ConfigFile string `yaml:"config_file"`
	// ExternalURL is what messages give as the address of this notifier. Empty
	// means its HTTP address.
	ExternalURL string `yaml:"external_url"`
	// InhibitionHold is how long an alert that another one inhibited must be free
	// of that before it is told: symptoms often outlive their cause by a moment.
	InhibitionHold time.Duration `yaml:"inhibition_hold"`
	// MaxJournalBytes is about what the journal of deliveries may hold. From 80 % of
	// it on the oldest entries go before their 30 days, as far as nobody needs them.
	MaxJournalBytes int64 `yaml:"max_journal_bytes"`
	// GRPCAddress is where the NotifierService is served.
	GRPCAddress string `yaml:"grpc_address"`
	// HTTPAddress is where metrics, liveness and readiness are read.
	HTTPAddress string `yaml:"http_address"`
	// Token is the bearer token that the ports ask for, the health paths apart.
	// Empty asks for none.
	Token secret.String `yaml:"token"`
	// TokenFile is a file that holds the token, in place of Token.
	TokenFile string `yaml:"token_file"`
	// Insecure allows addresses beyond loopback without a token.
	Insecure bool `yaml:"insecure"`
}

// DefaultConfig returns loopback addresses, no token and no file of routes.
func DefaultConfig() Config {
	return Config{
		InhibitionHold: defaultInhibitionHold, MaxJournalBytes: courier.DefaultJournalBytes,
		GRPCAddress: defaultGRPCAddress, HTTPAddress: defaultHTTPAddress,
	}
}

// Validate returns every mistake at once, each by its key, but those of tokens'
// files, which Apply returns.
func (c *Config) Validate() error {
	token := c.Token
	var errs []error
	if c.TokenFile != "" {
		token = "from a file"
	}
	if c.ExternalURL != "" {
		if u, err := url.Parse(c.ExternalURL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			errs = append(errs, errors.New("external_url: not an http or https URL"))
		}
	}
	if c.InhibitionHold < 0 || c.InhibitionHold > maxInhibitionHold {
		errs = append(errs, fmt.Errorf("inhibition_hold: %v is not between 0s and %v", c.InhibitionHold, maxInhibitionHold))
	}
	if c.MaxJournalBytes < minJournalBytes {
		errs = append(errs, fmt.Errorf("max_journal_bytes: %d is below the minimum of %d (64 MiB)", c.MaxJournalBytes, minJournalBytes))
	}
	for _, a := range []struct{ name, address string }{
		{"notifier.grpc_address", c.GRPCAddress}, {"notifier.http_address", c.HTTPAddress},
	} {
		if err := proc.CheckListen(a.name, a.address, token, c.Insecure); err != nil {
			// Who loads the section puts its name in front.
			errs = append(errs, errors.New(strings.TrimPrefix(err.Error(), "notifier.")))
		}
	}
	return errors.Join(errs...)
}

// Apply copies the section into o. It returns an error, by the key's full name,
// when the token's file cannot be used; the rest is copied all the same.
func (c *Config) Apply(o *Options) error {
	token, err := secret.Resolve("notifier.token", c.Token, c.TokenFile)
	o.ConfigFile, o.ExternalURL, o.InhibitionHold = c.ConfigFile, c.ExternalURL, c.InhibitionHold
	o.MaxJournalBytes = c.MaxJournalBytes
	o.GRPCAddress, o.HTTPAddress = c.GRPCAddress, c.HTTPAddress
	o.Token, o.Insecure = token, c.Insecure
	return err
}

// Addresses are the addresses that a notifier serves on once it runs.
type Addresses struct {
	// GRPC is where the NotifierService is served, as host:port.
	GRPC string
	// HTTP is where metrics and health are read, as host:port.
	HTTP string
}

// Options are what [Run] needs. Begin with [DefaultOptions].
type Options struct {
	// NATS is where alerts and deliveries are kept.
	NATS bus.Options
	// ConfigFile is a file in Alertmanager's format that names the routes and
	// the receivers.
	ConfigFile string
	// Config is the text of such a file, for those who embed the notifier. When
	// it and ConfigFile are empty, the default routes print every alert.
	Config []byte
	// ExternalURL is what messages give as the address of this notifier. Empty
	// means http:// and the HTTP address.
	ExternalURL string
	// InhibitionHold is how long an alert that another one inhibited must be free
	// of that before it is told. 0 does not wait.
	InhibitionHold time.Duration
	// MaxJournalBytes is about what the journal of deliveries may hold.
	MaxJournalBytes int64
	// GRPCAddress is where the NotifierService is served.
	GRPCAddress string
	// HTTPAddress is where metrics, liveness and readiness are read.
	HTTPAddress string
	// Token is the bearer token that the ports ask for. Empty asks for none.
	Token secret.String
	// Insecure allows addresses beyond loopback without a token.
	Insecure bool
	// Log receives one line for each unit of work; nil discards.
	Log *slog.Logger
	// Registerer takes the metrics; nil stands for a registry of the notifier's
	// own. /metrics shows it when it can be gathered from.
	Registerer prometheus.Registerer
	// Ready is called once, when the notifier leads and takes alerts; it may be
	// nil.
	Ready func(Addresses)
	// Print takes the lines of receivers with "format: print", without a line
	// feed. Nil logs them. It is called from one goroutine at a time.
	Print func(line string)
}

// DefaultOptions returns the options of a notifier without receivers, with NATS
// at its usual address.
func DefaultOptions() Options {
	return Options{
		NATS:            bus.Options{URL: "nats://127.0.0.1:4222", Name: "tocsin-notifier"},
		InhibitionHold:  defaultInhibitionHold,
		MaxJournalBytes: courier.DefaultJournalBytes,
		GRPCAddress:     defaultGRPCAddress,
		HTTPAddress:     defaultHTTPAddress,
		Log:             slog.New(slog.DiscardHandler),
	}
}

// Check looks at what the options name, for [proc.Load]: it reads the file of
// routes and the files that it names. Its error names every mistake at once, by
// key or by place in that file. The values themselves are checked by
// [Config.Validate].
func (o Options) Check() error {
	routes, err := o.routes()
	if err != nil {
		return err
	}
	sender, err := courier.NewSender(routes.Integrations, userAgent(), func(string) {})
	if err != nil {
		return err
	}
	sender.Close()
	return nil
}

// validate returns every mistake of the options at once.
func (o *Options) validate() error {
	var errs []error
	if o.ConfigFile != "" && o.Config != nil {
		errs = append(errs, errors.New("options name a configuration file and give its text: keep one of them"))
	}
	return errors.Join(append(errs,
		proc.CheckListen("notifier.grpc_address", o.GRPCAddress, o.Token, o.Insecure),
		proc.CheckListen("notifier.http_address", o.HTTPAddress, o.Token, o.Insecure))...)
}
