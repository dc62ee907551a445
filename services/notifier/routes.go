package notifier

import "github.com/tocsin-dev/tocsin/services/notifier/internal/settings"

// DefaultRoutes returns the file that is used where none is configured: it
// prints every alert at once, and holds the inhibitions that the default rules
// are written for. Those who embed a notifier can put receivers of their own
// into it.
func DefaultRoutes() []byte { return settings.DefaultText() }
