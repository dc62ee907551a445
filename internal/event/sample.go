package event

import (
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// Nearly all of a log are samples of endpoints, and the protobuf library spends
// 3 us and 21 allocations on each, as much as all rules together. decodeSample
// reads those, as they are written today, into one piece of memory. Whatever is
// out of the ordinary in a message, from a field of a newer release to bytes that
// mean nothing, is left to the library.

// sampleParts is a sample with all its parts side by side.
type sampleParts struct {
	event    eventv1.Event
	fact     eventv1.Event_HealthSampled
	sample   eventv1.HealthSampled
	target   eventv1.Target
	jobs     eventv1.JobCounts
	workers  eventv1.WorkerCounts
	occurred timestamppb.Timestamp
	held     durationpb.Duration
	interval durationpb.Duration
	counts   [11]int64
	counted  int
}

// decodeSample decodes a sample of an endpoint, or returns nil where it is for the
// library to say what a message is. The texts share one copy of data.
func decodeSample(data []byte) *eventv1.Event {
	text := string(data)
	if !looksLikeSample(text) {
		return nil
	}
	p := new(sampleParts)
	if !p.readEvent(text) {
		return nil
	}
	return &p.event
}

// The numbers of the fields of Event that a sample has.
const (
	eventID       = 1
	eventOccurred = 2
	eventTarget   = 3
	eventSource   = 4
	eventHeld     = 5
	eventHealth   = 10
)

// looksLikeSample says that there is a sample among the fields of an event, so
// that nothing is made for those without.
func looksLikeSample(data string) bool {
	f := fields{rest: data}
	for f.next() {
		if f.number == eventHealth {
			return true
		}
	}
	return false
}

func (p *sampleParts) readEvent(data string) bool {
	f := fields{rest: data}
	for f.next() {
		ok := false
		switch f.number {
		case eventID:
			p.event.Id, ok = f.words()
		case eventOccurred:
			p.event.OccurredAt = &p.occurred
			ok = f.isBytes && readInstant(f.bytes, &p.occurred.Seconds, &p.occurred.Nanos)
		case eventTarget:
			p.event.Target = &p.target
			ok = f.isBytes && readTarget(f.bytes, &p.target)
		case eventSource:
			p.event.Source, ok = eventv1.Source(f.varint), !f.isBytes
		case eventHeld:
			p.event.Held = &p.held
			ok = f.isBytes && readInstant(f.bytes, &p.held.Seconds, &p.held.Nanos)
		case eventHealth:
			p.fact.HealthSampled, p.event.Fact = &p.sample, &p.fact
			ok = f.isBytes && p.readSample(f.bytes)
		}
		if !ok {
			return false
		}
	}
	return !f.wrong
}

func (p *sampleParts) readSample(data string) bool {
	f := fields{rest: data}
	for f.next() {
		ok := false
		switch f.number {
		case 1:
			p.sample.PollSlotMs, ok = int64(f.varint), !f.isBytes
		case 2:
			p.sample.Interval = &p.interval
			ok = f.isBytes && readInstant(f.bytes, &p.interval.Seconds, &p.interval.Nanos)
		case 3:
			j := &p.jobs
			p.sample.Jobs = j
			ok = f.isBytes && p.readCounts(f.bytes, &j.Completed, &j.Failed, &j.Retried, &j.InProgress, &j.InQueue)
		case 4:
			w := &p.workers
			p.sample.Workers = w
			ok = f.isBytes && p.readCounts(f.bytes, &w.Idle, &w.Ready, &w.Running, &w.Initializing, &w.Throttled, &w.Unhealthy)
		}
		if !ok {
			return false
		}
	}
	return !f.wrong
}

// readCounts reads a message of optional whole numbers, by the numbers of their fields.
func (p *sampleParts) readCounts(data string, to ...**int64) bool {
	f := fields{rest: data}
	for f.next() {
		if f.isBytes || f.number > len(to) {
			return false
		}
		count := &p.counts[p.counted]
		p.counted++
		*count, *to[f.number-1] = int64(f.varint), count
	}
	return !f.wrong
}

func readTarget(data string, t *eventv1.Target) bool {
	f := fields{rest: data}
	for f.next() {
		ok := false
		switch f.number {
		case 1:
			t.Account, ok = f.words()
		case 2:
			t.Kind, ok = eventv1.TargetKind(f.varint), !f.isBytes
		case 3:
			t.Id, ok = f.words()
		case 4:
			t.Name, ok = f.words()
		}
		if !ok {
			return false
		}
	}
	return !f.wrong
}

// readInstant reads a timestamp or a duration.
func readInstant(data string, seconds *int64, nanos *int32) bool {
	f := fields{rest: data}
	for f.next() {
		switch {
		case f.isBytes || f.number > 2:
			return false
		case f.number == 1:
			*seconds = int64(f.varint)
		default:
			*nanos = int32(f.varint)
		}
	}
	return !f.wrong
}

// fields reads the fields of a message one by one: those that are varints or
// bytes, have a number of one byte and stand there once.
type fields struct {
	rest string
	// number is the field's at hand, from 1 to 15.
	number  int
	isBytes bool
	varint  uint64
	bytes   string
	// seen has a bit for each number that was met.
	seen uint16
	// wrong says that it ended at something else.
	wrong bool
}

// The wire types that are read.
const (
	wireVarint = 0
	wireBytes  = 2
)

// next moves to the next field. It returns false at the end and at what it cannot
// read, which is wrong.
func (f *fields) next() bool {
	if f.rest == "" {
		return false
	}
	tag := f.rest[0]
	f.rest = f.rest[1:]
	f.number, f.isBytes = int(tag>>3), tag&7 == wireBytes
	bit := uint16(1) << f.number
	f.wrong = tag > math.MaxInt8 || f.number == 0 || f.seen&bit != 0 || !f.isBytes && tag&7 != wireVarint || !f.readVarint()
	f.seen |= bit
	switch {
	case f.wrong:
	case !f.isBytes:
		return true
	case f.varint > uint64(len(f.rest)):
		f.wrong = true
	default:
		f.bytes, f.rest = f.rest[:f.varint], f.rest[f.varint:]
		return true
	}
	return false
}

// readVarint reads a number of seven bits a byte, the lowest first.
func (f *fields) readVarint() bool {
	f.varint = 0
	for i := 0; i < len(f.rest); i++ {
		b := f.rest[i]
		f.varint |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			f.rest = f.rest[i+1:]
			return i < 9 || b <= 1
		}
		if i == 9 {
			return false
		}
	}
	return false
}

// words returns the field as a text.
func (f *fields) words() (string, bool) {
	return f.bytes, f.isBytes && utf8.ValidString(f.bytes)
}
