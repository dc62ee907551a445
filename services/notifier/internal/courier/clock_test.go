package courier

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestTheCoresTimeGoesOnAndCompares cannot set the wall clock; the fault test does,
// in processes.
func TestTheCoresTimeGoesOnAndCompares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now().Round(0)
		c := newClock()
		time.Sleep(time.Hour)
		// As a struct: Equal would not see a reading of the monotonic clock.
		if got, want := c.now(), began.Add(time.Hour); got != want {
			t.Errorf("after an hour it is %v, want %v", got, want)
		}
	})
}
