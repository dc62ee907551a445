package job

import (
	"strings"
	"time"
)

const (
	// syncPrefix begins the ids of synchronous jobs (/runsync).
	syncPrefix = "sync-"
	// syncPause is the longest pause between two polls of a synchronous job. RunPod
	// keeps its result for a minute: three polls fall into it, of which two may fail.
	// Any other result is kept for 30 minutes.
	syncPause = 20 * time.Second
	// longestPause is the longest between two polls of any other job: a third of
	// these 30 minutes.
	longestPause = 10 * time.Minute
	// perSecond bounds the polls of the jobs of one endpoint. RunPod allows 2000
	// calls of status in 10 s for an endpoint and user, all tools together: a
	// quarter of them. Those of 100 jobs are that many in their first minute.
	perSecond = 50
	// kept and keptSync are for how long RunPod surely keeps the end of a job and
	// of a synchronous one: five sixths of what it states. What was known so lately
	// did not end and was then forgotten; of any other job nobody can tell.
	kept     = 25 * time.Minute
	keptSync = 50 * time.Second
)

// within returns pause, or less where RunPod forgets the job's end sooner.
func within(key Key, pause time.Duration) time.Duration {
	if strings.HasPrefix(key.ID, syncPrefix) {
		return min(pause, syncPause)
	}
	return pause
}

// crowded returns when a job that would be polled at the instant at is polled
// where open jobs of its endpoint are: rarer, the more there are, and spread by
// jitter in [0, 1), because many were registered at once.
func crowded(key Key, now, at time.Time, open int, jitter float64) time.Time {
	pause := min(time.Duration(open)*time.Second/perSecond, longestPause)
	if pause <= at.Sub(now) {
		return at
	}
	pause -= time.Duration(float64(pause) / 2 * jitter)
	if spread := now.Add(within(key, pause)); spread.After(at) {
		return spread
	}
	return at
}

// watched says that the job cannot have ended and been forgotten since it was
// known last. A machine that slept is known by its clock, since the monotonic one
// does not count that.
func (j *job) watched(now time.Time) bool {
	unseen := max(now.Sub(j.known), now.Round(0).Sub(j.known.Round(0)))
	if strings.HasPrefix(j.key.ID, syncPrefix) {
		return unseen < keptSync
	}
	return unseen < kept
}
