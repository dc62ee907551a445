package pack

import (
	"reflect"
	"time"
	"unsafe"

	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
)

// leap moves a harness's clock on without any message in between, as when
// everything was stopped. The kit has no way to say so: all of its time passes
// in ticks.
func leap(h *ruletest.Harness, d time.Duration) {
	clock := reflect.ValueOf(h).Elem().FieldByName("now")
	now := reflect.NewAt(clock.Type(), unsafe.Pointer(clock.UnsafeAddr())).Interface().(*time.Time)
	*now = now.Add(d)
}
