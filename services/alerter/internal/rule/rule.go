// Package rule is the life of one alert: inactive, pending, firing, resolved.
// It promises that missing facts change nothing and that no wait goes on while
// they are missing, that an alert with a clear
// condition of its own ends by that condition alone, and that what happens
// depends on nothing but the state, the instant and the truth of the
// conditions. Time is engine time in milliseconds.
package rule

import "time"

// RenewEvery is how often a firing alert is sent again, so that its record at
// the notifier never ages out of a stream that is kept for 90 days.
const RenewEvery = 24 * time.Hour

// Truth is what is known of a condition.
type Truth int

// The truths of a condition.
const (
	// Unknown means that the facts to decide it are missing.
	Unknown Truth = iota
	// No means that it does not hold.
	No
	// Yes means that it holds.
	Yes
)

// Timing is what a rule says about time.
type Timing struct {
	// For is how long the condition must hold before the alert fires, in
	// milliseconds.
	For int64
	// Keep is how long the alert fires on after its end, in milliseconds.
	Keep int64
	// HasUntil says that the alert ends by a condition of its own.
	HasUntil bool
}

// Phase is where an alert stands.
type Phase int

// The phases of an alert.
const (
	// Inactive means that there is no alert.
	Inactive Phase = iota
	// Pending means that the condition holds, but not yet for long enough.
	Pending
	// Firing means that people are told.
	Firing
)

// State is where an alert stands and since when. Instants are in milliseconds
// of engine time and mean something only in the phases named.
type State struct {
	// Phase is where it stands.
	Phase Phase
	// Active is when the condition began to hold, later by all the time in which
	// nobody knew (pending, firing).
	Active int64
	// Fired is when it began to fire (firing).
	Fired int64
	// Clearing says that its end came and Keep runs (firing).
	Clearing bool
	// Cleared is when its end came, later by all the time in which nobody knew
	// (clearing).
	Cleared int64
	// Frozen says that the wait for For or for Keep stands still, because nobody
	// knows whether there still is something to wait for (pending, clearing).
	Frozen bool
	// Held is how much of the wait had passed then (frozen).
	Held int64
	// Renew is when it is to be sent again (firing).
	Renew int64
}

// Verdict is what is known of an alert's conditions at an instant.
type Verdict struct {
	// Cond is the truth of its condition.
	Cond Truth
	// Until is the truth of its clear condition; it is ignored without HasUntil.
	Until Truth
	// Since is since when the facts are missing, where a truth is Unknown: at
	// most now.
	Since int64
}

// Change is what a step did.
type Change int

// The changes of an alert.
const (
	// None means that nothing happened that anybody sees.
	None Change = iota
	// Began means that the alert is pending now.
	Began
	// Vanished means that a pending alert is no more.
	Vanished
	// Fires means that the alert fires now.
	Fires
	// Resolved means that a firing alert is over.
	Resolved
	// Renewed means that a firing alert is to be sent again.
	Renewed
)

// Step returns the state after the instant now, given what is known of the
// rule's conditions. A condition that holds wins over a clear condition that
// holds.
func (s State) Step(now int64, v Verdict, t Timing) (State, Change) {
	switch s.Phase {
	case Inactive:
		if v.Cond != Yes {
			return s, None
		}
		s = State{Phase: Pending, Active: now}
		if t.For == 0 {
			return s.fire(now), Fires
		}
		return s, Began
	case Pending:
		switch v.Cond {
		case No:
			return State{}, Vanished
		case Unknown:
			return s.Freeze(v.Since), None
		}
		if s = s.thaw(now); now-s.Active >= t.For {
			return s.fire(now), Fires
		}
		return s, None
	default:
		return s.firing(now, v, t)
	}
}

// Freeze stops the wait for For or for Keep as of an instant, until a step finds
// that there is something to wait for. It changes nothing where none runs.
func (s State) Freeze(at int64) State {
	since := s.Active
	switch {
	case s.Frozen, s.Phase == Inactive, s.Phase == Firing && !s.Clearing:
		return s
	case s.Phase == Firing:
		since = s.Cleared
	}
	s.Frozen, s.Held = true, max(at-since, 0)
	return s
}

// thaw lets a wait go on.
func (s State) thaw(now int64) State {
	if !s.Frozen {
		return s
	}
	if s.Phase == Pending {
		s.Active = now - s.Held
	} else {
		s.Cleared = now - s.Held
	}
	s.Frozen, s.Held = false, 0
	return s
}

func (s State) fire(now int64) State {
	s.Phase, s.Fired, s.Renew = Firing, now, now+RenewEvery.Milliseconds()
	return s
}

// ended says whether a firing alert's end has come.
func ended(v Verdict, t Timing) Truth {
	switch {
	case v.Cond == Yes:
		return No
	case t.HasUntil:
		return v.Until
	case v.Cond == No:
		return Yes
	default:
		return Unknown
	}
}

func (s State) firing(now int64, v Verdict, t Timing) (State, Change) {
	over := ended(v, t)
	switch {
	case over == Unknown:
		s = s.Freeze(v.Since)
	case over == No:
		s.Clearing, s.Cleared, s.Frozen, s.Held = false, 0, false, 0
	case s.Clearing:
		s = s.thaw(now)
	default:
		s.Clearing, s.Cleared = true, now
	}
	if over == Yes && now-s.Cleared >= t.Keep {
		return State{}, Resolved
	}
	if now >= s.Renew {
		for s.Renew <= now {
			s.Renew += RenewEvery.Milliseconds()
		}
		return s, Renewed
	}
	return s, None
}

// Due returns the earliest instant after now at which the passing of time alone
// may change the state, and false if there is none.
func (s State) Due(now int64, t Timing) (int64, bool) {
	due, ok := int64(0), false
	consider := func(at int64) {
		if at > now && (!ok || at < due) {
			due, ok = at, true
		}
	}
	switch s.Phase {
	case Pending:
		if !s.Frozen {
			consider(s.Active + t.For)
		}
	case Firing:
		consider(s.Renew)
		if s.Clearing && !s.Frozen {
			consider(s.Cleared + t.Keep)
		}
	}
	return due, ok
}
