package rule

import "slices"

// Flapping says how often an alert may change before it is no news any more. The
// zero value sets no bound.
type Flapping struct {
	// Window is the time in which changes are counted, and for how long an alert
	// must not have changed to be calm again, in milliseconds.
	Window int64
	// Transitions is from how many on it flaps.
	Transitions int
}

// Set says that there is a bound.
func (f Flapping) Set() bool { return f.Transitions > 0 }

// Changed returns the instants of an alert's changes, oldest first, after one at
// the instant now, without mutating them. No more are kept than decide.
func (f Flapping) Changed(changes []int64, now int64) []int64 {
	changes = append(f.Recent(changes, now), now)
	return changes[max(len(changes)-f.Transitions, 0):]
}

// Recent returns the changes that are still counted at the instant now, in a slice
// of its own.
func (f Flapping) Recent(changes []int64, now int64) []int64 {
	return slices.DeleteFunc(slices.Clone(changes), func(at int64) bool { return at <= now-f.Window })
}

// Flaps says that an alert changed too often.
func (f Flapping) Flaps(changes []int64) bool { return f.Set() && len(changes) >= f.Transitions }

// Calm is the wait of an alert that flaps for a window without a change. It stands
// still while nobody knows whether there is one.
type Calm struct {
	// Since is when it changed last, later by all the time in which nobody knew.
	Since int64
	// Frozen says that the wait stands still.
	Frozen bool
	// Held is how much of it had passed then (frozen).
	Held int64
}

// Freeze stops the wait as of an instant.
func (c Calm) Freeze(at int64) Calm {
	if !c.Frozen {
		c.Frozen, c.Held = true, max(at-c.Since, 0)
	}
	return c
}

// Thaw lets it go on.
func (c Calm) Thaw(now int64) Calm {
	if c.Frozen {
		return Calm{Since: now - c.Held}
	}
	return c
}

// Over says that an alert is calm again.
func (c Calm) Over(now int64, f Flapping) bool { return !c.Frozen && now-c.Since >= f.Window }

// Due returns when it may be, and false where nobody knows.
func (c Calm) Due(f Flapping) (int64, bool) { return c.Since + f.Window, !c.Frozen }
