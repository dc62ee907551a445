//go:build !race

package pack

import "time"

const (
	// wholeNight is how long the quiet night is watched.
	wholeNight = 12 * time.Hour
	// night is how long the stories watch for what must not come: what repeats
	// does so every two hours at most.
	night = 3 * time.Hour
)
