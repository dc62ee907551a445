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
	// Any other result is kept for 30 minutes, of which the longest pause that can be
	// set is a third.
	syncPause = 20 * time.Second
)

// within returns pause, or less where RunPod forgets the job's end sooner.
func within(key Key, pause time.Duration) time.Duration {
	if strings.HasPrefix(key.ID, syncPrefix) {
		return min(pause, syncPause)
	}
	return pause
}
