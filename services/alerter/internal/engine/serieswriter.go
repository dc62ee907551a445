package engine

import (
	"sync"

	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
)

// seriesWriter turns the series of one target into messages. It keeps them for the
// next target: they were half of what a commit of many targets allocated.
type seriesWriter struct {
	written []*writtenSeries
	used    int
}

type writtenSeries struct {
	message statev1.Series
	until   int64 // where message.UntilMs points to
}

var seriesWriters = sync.Pool{New: func() any { return new(seriesWriter) }}

// takeWriter returns a writer, which the caller gives back when what it wrote is
// encoded.
func takeWriter() *seriesWriter { return seriesWriters.Get().(*seriesWriter) }

func (w *seriesWriter) giveBack() {
	w.used = 0
	seriesWriters.Put(w)
}

func (w *seriesWriter) next() *writtenSeries {
	if w.used == len(w.written) {
		w.written = append(w.written, &writtenSeries{})
	}
	s := w.written[w.used]
	w.used++
	return s
}

// encode encodes what is recorded. Before the program is known after a load, that
// is what was read.
func (w *seriesWriter) encode(loose []*statev1.Series, series []window.Series, recorded []recorded) []*statev1.Series {
	if loose != nil {
		return loose
	}
	all := make([]*statev1.Series, 0, len(recorded))
	for i, r := range recorded {
		if i < len(series) && !series[i].Empty() {
			all = append(all, w.one(r.key, series[i].State()))
		}
	}
	return all
}

func (w *seriesWriter) one(key string, st window.State) *statev1.Series {
	s := w.next()
	m := &s.message
	m.Key, m.FirstMs, m.UntilMs = key, st.First, nil
	if st.Until != window.Forever {
		s.until = st.Until
		m.UntilMs = &s.until
	}
	m.Starts, m.Values, m.Unknown = m.Starts[:0], m.Values[:0], m.Unknown[:0]
	last := int64(0)
	for j, step := range st.Steps {
		m.Starts = append(m.Starts, step.Start-last)
		m.Values = append(m.Values, step.Value)
		if last = step.Start; !step.Known {
			m.Unknown = append(m.Unknown, uint32(j))
		}
	}
	return m
}
