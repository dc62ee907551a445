//go:build race

package pack

import "time"

// Nights are shorter under the race detector, which makes the fold ten times
// slower and has nothing to find in its one goroutine.
const (
	// wholeNight holds the batch, which comes after 2 hours.
	wholeNight = 2*time.Hour + 30*time.Minute
	night      = time.Hour
)
