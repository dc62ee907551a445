package alerter

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	"github.com/tocsin-dev/tocsin/internal/secret"
	"github.com/tocsin-dev/tocsin/rules"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

const (
	defaultGRPCAddress     = "127.0.0.1:9091"
	defaultHTTPAddress     = "127.0.0.1:8082"
	defaultNotifierAddress = "127.0.0.1:9092"
	defaultRedisAddress    = "127.0.0.1:6379"
	// defaultSnapshotInterval bounds what a start replays after Redis was lost:
	// 5 minutes of 5,000 events/s are 1.5 million messages, 30 s of replay.
	defaultSnapshotInterval = 5 * time.Minute
	// maxSpeed is how much faster a demo may run: more than 90 s of the rules' time
	// without a message are a gap, in which nothing waits. At 120 ticks come every
	// half a second, and one may be a quarter of a second late.
	maxSpeed = 120
	// modeNormal is the mode in which each rule has its own.
	modeNormal = "normal"
)

// Config is the section "alerter" of the configuration.
type Config struct {
	// Rules are the rule files: paths, or patterns such as /etc/tocsin/*.yaml.
	// Empty means the default pack.
	Rules []string `yaml:"rules"`
	// PackVersion is the version of the default pack whose rules people are told of:
	// those that came later are only observed. Empty stands for this release's.
	PackVersion string `yaml:"pack_version"`
	// Mode is "observe" where nobody is to be told of alerts, whatever their rules
	// say, and "normal" otherwise.
	Mode string `yaml:"mode"`
	// Notifier is where alerts are sent.
	Notifier NotifierConfig `yaml:"notifier"`
	// GRPCAddress is where the QueryService is served.
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
	// SnapshotInterval is the time between two snapshots of a partition.
	SnapshotInterval time.Duration `yaml:"snapshot_interval"`
	// MaxStreamBytes bounds the event log when the alerter creates it; 0 stands
	// for 10 GiB, or less where the disk has less room.
	MaxStreamBytes int64 `yaml:"max_stream_bytes"`
}

// NotifierConfig says how the notifier is reached.
type NotifierConfig struct {
	// Address is host:port of the notifier's gRPC port.
	Address string `yaml:"address"`
	// Token is the notifier's bearer token.
	Token secret.String `yaml:"token"`
	// TokenFile is a file that holds the token, in place of Token.
	TokenFile string `yaml:"token_file"`
	// Insecure allows to send the token unencrypted to another machine.
	Insecure bool `yaml:"insecure"`
}

// DefaultConfig returns loopback addresses, no token and the default rules.
func DefaultConfig() Config {
	return Config{
		Mode:             modeNormal,
		Notifier:         NotifierConfig{Address: defaultNotifierAddress},
		GRPCAddress:      defaultGRPCAddress,
		HTTPAddress:      defaultHTTPAddress,
		SnapshotInterval: defaultSnapshotInterval,
	}
}

// Validate returns every mistake at once, each by its key, but those of tokens'
// files, which Apply returns.
func (c *Config) Validate() error {
	var errs []error
	token := c.Token
	if c.TokenFile != "" {
		token = "from a file"
	}
	if _, _, err := net.SplitHostPort(c.Notifier.Address); err != nil {
		errs = append(errs, fmt.Errorf("notifier.address: %q is not an address such as %s", c.Notifier.Address, defaultNotifierAddress))
	}
	for _, a := range []struct{ name, address string }{
		{"alerter.grpc_address", c.GRPCAddress},
		{"alerter.http_address", c.HTTPAddress},
	} {
		// The section stands before each line already, where this is called.
		if err := proc.CheckListen(a.name, a.address, token, c.Insecure); err != nil {
			errs = append(errs, errors.New(strings.TrimPrefix(err.Error(), "alerter.")))
		}
	}
	if c.Mode != modeNormal && c.Mode != string(rulefile.ModeObserve) {
		errs = append(errs, fmt.Errorf("mode: %q is no mode; expected %s or %s", c.Mode, modeNormal, rulefile.ModeObserve))
	}
	if _, err := rules.After(c.PackVersion); err != nil {
		errs = append(errs, fmt.Errorf("pack_version: %w", err))
	}
	if c.SnapshotInterval < time.Second || c.SnapshotInterval > time.Hour {
		errs = append(errs, fmt.Errorf("snapshot_interval: %v is not between 1s and 1h", c.SnapshotInterval))
	}
	if c.MaxStreamBytes < 0 {
		errs = append(errs, fmt.Errorf("max_stream_bytes: %d is negative", c.MaxStreamBytes))
	}
	return errors.Join(errs...)
}

// Apply copies the section into o. It returns an error, by the keys' full names,
// when tokens' files cannot be used; the rest is copied all the same.
func (c *Config) Apply(o *Options) error {
	token, tokenErr := secret.Resolve("alerter.token", c.Token, c.TokenFile)
	notifierToken, notifierErr := secret.Resolve("alerter.notifier.token", c.Notifier.Token, c.Notifier.TokenFile)
	if o.ObservedRules = nil; len(c.Rules) == 0 {
		o.ObservedRules, _ = rules.After(c.PackVersion) // its error is Validate's
	}
	o.Rules, o.Observe = c.Rules, c.Mode == string(rulefile.ModeObserve)
	o.Notifier = Notifier{Address: c.Notifier.Address, Token: notifierToken, Insecure: c.Notifier.Insecure}
	o.GRPCAddress, o.HTTPAddress = c.GRPCAddress, c.HTTPAddress
	o.Token, o.Insecure = token, c.Insecure
	o.SnapshotInterval, o.MaxStreamBytes = c.SnapshotInterval, c.MaxStreamBytes
	return errors.Join(tokenErr, notifierErr)
}

// RedisConfig is the section "redis" of the configuration.
type RedisConfig struct {
	// Address is host:port, or the path of a Unix socket.
	Address string `yaml:"address"`
	// User is the name in Redis's ACL. Empty means its default user.
	User string `yaml:"user"`
	// Password opens it. Empty means that it needs none.
	Password secret.String `yaml:"password"`
	// PasswordFile is a file that holds the password, in place of Password.
	PasswordFile string `yaml:"password_file"`
	// DB is the number of the database.
	DB int `yaml:"db"`
}

// DefaultRedisConfig returns Redis at its usual address on this machine.
func DefaultRedisConfig() RedisConfig { return RedisConfig{Address: defaultRedisAddress} }

// Validate returns every mistake at once, each by its key.
func (c *RedisConfig) Validate() error {
	var errs []error
	if c.Address == "" {
		errs = append(errs, errors.New("address: it is empty"))
	}
	if c.User != "" && !c.Password.Set() && c.PasswordFile == "" {
		errs = append(errs, errors.New("user: it needs a password or password_file"))
	}
	if c.DB < 0 {
		errs = append(errs, fmt.Errorf("db: %d is negative", c.DB))
	}
	return errors.Join(errs...)
}

// Apply copies the section into o. It returns an error when the password's file
// cannot be used; the rest is copied all the same.
func (c *RedisConfig) Apply(o *Options) error {
	password, err := secret.Resolve("redis.password", c.Password, c.PasswordFile)
	o.Redis = Redis{Address: c.Address, User: c.User, Password: password, DB: c.DB}
	return err
}

// Addresses are the addresses that an alerter serves on once it runs.
type Addresses struct {
	// GRPC is where the QueryService is served, as host:port.
	GRPC string
	// HTTP is where metrics and health are read, as host:port.
	HTTP string
}

// Redis says where the state is kept.
type Redis struct {
	// Address is host:port, or the path of a Unix socket.
	Address string
	// User is the name in Redis's ACL. Empty means its default user.
	User string
	// Password opens it. Empty means that it needs none.
	Password secret.String
	// DB is the number of the database.
	DB int
}

// Notifier says where alerts are sent.
type Notifier struct {
	// Address is host:port of the notifier's gRPC port.
	Address string
	// Token is the notifier's bearer token. Empty sends none.
	Token secret.String
	// Insecure allows to send the token unencrypted to another machine.
	Insecure bool
}

// Options are what [Run] needs. Begin with [DefaultOptions].
type Options struct {
	// NATS is where the event log is.
	NATS bus.Options
	// Redis is where the state is kept.
	Redis Redis
	// Notifier is where alerts are sent.
	Notifier Notifier
	// Rules are paths and patterns of rule files. When they and RuleFiles are
	// empty, the default pack is used.
	Rules []string
	// RuleFiles are rule files by name, for those who embed the alerter.
	RuleFiles map[string][]byte
	// Observe evaluates all rules and shows their alerts, and tells nobody.
	Observe bool
	// ObservedRules are the names of rules of which nobody is told.
	ObservedRules []string
	// Targets give targets labels and overrides by their names.
	Targets []rulefile.TargetPattern
	// GRPCAddress is where the QueryService is served.
	GRPCAddress string
	// HTTPAddress is where metrics, liveness and readiness are read.
	HTTPAddress string
	// Token is the bearer token that the ports ask for. Empty asks for none.
	Token secret.String
	// Insecure allows addresses beyond loopback without a token.
	Insecure bool
	// Speed is how many times faster than life the rules run. It is 1 but in a
	// demo, and must not change while anything is stored.
	Speed float64
	// SnapshotInterval is the time between two snapshots of a partition.
	SnapshotInterval time.Duration
	// MaxStreamBytes bounds the event log when the alerter creates it; 0 leaves
	// it to the bus.
	MaxStreamBytes int64
	// Reload asks to read the rule files anew each time that it has a value; nil
	// never does. They are also read anew when they change.
	Reload <-chan struct{}
	// Log receives one line for each unit of work; nil discards.
	Log *slog.Logger
	// Registerer takes the metrics; nil stands for a registry of the alerter's
	// own. /metrics shows it when it can be gathered from.
	Registerer prometheus.Registerer
	// Ready is called once, when the alerter works and answers; it may be nil.
	Ready func(Addresses)

	gatherer prometheus.Gatherer // of Registerer, where it has one
}

// DefaultOptions returns the options of an alerter with the default rules, with
// NATS, Redis and the notifier at their usual addresses.
func DefaultOptions() Options {
	return Options{
		NATS:             bus.Options{URL: bus.DefaultURL, Name: "tocsin-alerter"},
		Redis:            Redis{Address: defaultRedisAddress},
		Notifier:         Notifier{Address: defaultNotifierAddress},
		GRPCAddress:      defaultGRPCAddress,
		HTTPAddress:      defaultHTTPAddress,
		Speed:            1,
		SnapshotInterval: defaultSnapshotInterval,
		Log:              slog.New(slog.DiscardHandler),
	}
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = proc.NewRegistry()
	}
	o.gatherer, _ = o.Registerer.(prometheus.Gatherer)
	if o.gatherer == nil {
		o.gatherer = prometheus.Gatherers{}
	}
	if o.NATS.Log == nil {
		o.NATS.Log = o.Log
	}
	if o.NATS.Registerer == nil {
		o.NATS.Registerer = o.Registerer
	}
	return o
}

// Check looks at what the options name, for [proc.Load]: it reads the rule files
// and compiles the rules, and sees whether the notifier may be called as is said.
// Its error names every mistake at once, by key or by place in a rule file. The
// values themselves are checked by [Config.Validate].
func (o Options) Check() error {
	files, filesErr := o.ruleFiles()
	_, rulesErr := engine.CompileFiles(files, nil)
	return errors.Join(filesErr, o.checkNotifier(), rulesErr)
}

// checkNotifier reports whether the notifier's address can be called.
func (o Options) checkNotifier() error {
	conn, err := rpc.Dial(o.Notifier.Address, rpc.DialOptions{Token: o.Notifier.Token, Insecure: o.Notifier.Insecure})
	if err != nil {
		return fmt.Errorf("alerter.notifier.address: %w", err)
	}
	return conn.Close()
}

// compile checks the options and compiles the rules of the rule files, which it
// returns too. Its error names every mistake at once.
func (o Options) compile() (*engine.Program, map[string][]byte, error) {
	errs := []error{
		proc.CheckListen("alerter.grpc_address", o.GRPCAddress, o.Token, o.Insecure),
		proc.CheckListen("alerter.http_address", o.HTTPAddress, o.Token, o.Insecure),
		o.checkNotifier(),
	}
	if o.Speed <= 0 || o.Speed > maxSpeed {
		errs = append(errs, fmt.Errorf("speed: %v is not above 0 and at most %d", o.Speed, maxSpeed))
	}
	if o.SnapshotInterval <= 0 {
		errs = append(errs, fmt.Errorf("alerter.snapshot_interval: %v is not positive", o.SnapshotInterval))
	}
	files, err := o.ruleFiles()
	errs = append(errs, err)
	program, err := o.compileRules(files)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, nil, err
	}
	return program, files, nil
}

// compileRules compiles rules in the mode that the options ask for, at the start and
// when they are read anew. Its error names every mistake at once.
func (o Options) compileRules(files map[string][]byte) (*engine.Program, error) {
	program, err := engine.CompileFiles(files, o.Targets)
	if err != nil || !o.Observe && len(o.ObservedRules) == 0 {
		return program, err
	}
	set := program.Set()
	if len(o.ObservedRules) > 0 {
		set = set.WithObserved(o.ObservedRules)
	}
	if o.Observe {
		set = set.WithMode(rulefile.ModeObserve)
	}
	return engine.Compile(set)
}

// ruleFiles reads the rule files.
func (o Options) ruleFiles() (map[string][]byte, error) {
	if len(o.Rules) == 0 && len(o.RuleFiles) == 0 {
		return rules.Default(), nil
	}
	files := maps.Clone(o.RuleFiles)
	if files == nil {
		files = map[string][]byte{}
	}
	var errs []error
	for i, pattern := range o.Rules {
		names, err := filepath.Glob(pattern)
		if err != nil {
			errs = append(errs, fmt.Errorf("alerter.rules[%d]: %q: %w", i, pattern, err))
		} else if len(names) == 0 {
			errs = append(errs, fmt.Errorf("alerter.rules[%d]: %q matches no file", i, pattern))
		}
		for _, name := range slices.Sorted(slices.Values(names)) {
			text, err := os.ReadFile(name)
			if err != nil {
				errs = append(errs, fmt.Errorf("alerter.rules[%d]: %w", i, err))
				continue
			}
			files[name] = text
		}
	}
	return files, errors.Join(errs...)
}
