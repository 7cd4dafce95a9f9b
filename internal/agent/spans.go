package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/otlp"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
	"github.com/kaon-project/kaon/internal/stream"
)

// spanMaker makes spans of one stream's records.
type spanMaker struct {
	spec       *program.Span
	exporter   *otlp.Exporter
	attributes []field
	// Each nil if the records don't tell.
	traceID, spanID, parentID, start, duration, name *field
	bad                                              *atomic.Uint64
}

// field is a label with what decodes it.
type field struct {
	label *program.Label
	value *series.ChainValue
}

// exportSpans begins to send the Program's spans, if there is somewhere to send them. Records that are no spans are counted in u.badSpans.
func (a *Agent) exportSpans(u *unit, spec *program.Spec, streams *stream.Set) error {
	if len(spec.Spans) == 0 {
		return nil
	}
	if a.spans == nil {
		a.log.Info("the program's spans go nowhere: set traces.endpoint in kaon.yaml or OTEL_EXPORTER_OTLP_ENDPOINT", "program", spec.Name)
		return nil
	}
	for i := range spec.Spans {
		ring, err := streams.Ring(spec.Spans[i].Stream)
		if err != nil {
			return err
		}
		m := &spanMaker{spec: &spec.Spans[i], exporter: a.spans, bad: &u.badSpans}
		if err := m.prepare(a.host, a.workloads); err != nil {
			return err
		}
		ring.Consume(m.add)
	}
	return nil
}

func (m *spanMaker) prepare(host *series.Host, directories series.Directories) error {
	open := func(l *program.Label) (*field, error) {
		if l == nil {
			return nil, nil
		}
		v, err := series.NewChainValue(l, host, directories)
		if err != nil {
			return nil, err
		}
		return &field{l, v}, nil
	}
	for _, f := range []struct {
		to    **field
		label *program.Label
	}{
		{&m.traceID, m.spec.TraceID}, {&m.spanID, m.spec.SpanID}, {&m.parentID, m.spec.ParentID},
		{&m.start, m.spec.Start}, {&m.duration, m.spec.Duration}, {&m.name, m.spec.NameField},
	} {
		var err error
		if *f.to, err = open(f.label); err != nil {
			return err
		}
	}
	for i := range m.spec.Attributes {
		f, err := open(&m.spec.Attributes[i])
		if err != nil {
			return err
		}
		m.attributes = append(m.attributes, *f)
	}
	return nil
}

// text decodes a field of a record; nil is "".
func (f *field) text(record []byte) (text string, skip bool) {
	if f == nil {
		return "", false
	}
	return f.value.Text(f.label.Field.Bytes(record))
}

// add makes a span of a record. It is called for one record at a time.
func (m *spanMaker) add(record []byte) {
	s := otlp.Span{Service: m.spec.Service, Name: m.spec.Name, Start: time.Now()}
	for _, a := range m.spec.Static {
		s.Attributes = append(s.Attributes, otlp.Attribute{Key: a.Name, Value: a.Value})
	}
	for i := range m.attributes {
		f := &m.attributes[i]
		value, skip := f.text(record)
		if skip {
			return
		}
		s.Attributes = append(s.Attributes, otlp.Attribute{Key: f.label.Name, Value: value})
	}
	good := m.identify(s.TraceID[:], m.traceID, record) && m.identify(s.SpanID[:], m.spanID, record) && m.identify(s.ParentID[:], m.parentID, record)
	if m.start != nil {
		at, ok := nanoseconds(m.start, record)
		s.Start = s.Start.Add(at - monotonic())
		good = good && ok
	}
	if m.duration != nil {
		var ok bool
		s.Duration, ok = nanoseconds(m.duration, record)
		good = good && ok
	}
	if !good {
		m.bad.Add(1)
		return
	}
	if m.name != nil {
		var skip bool
		if s.Name, skip = m.name.text(record); skip {
			return
		}
	}
	// Identifiers of zeros are none.
	if s.TraceID == [16]byte{} {
		_, _ = rand.Read(s.TraceID[:])
	}
	if s.SpanID == [8]byte{} {
		_, _ = rand.Read(s.SpanID[:])
	}
	m.exporter.Add(s)
}

func (m *spanMaker) identify(id []byte, f *field, record []byte) bool {
	if f == nil {
		return true
	}
	text, _ := f.text(record)
	n, err := hex.Decode(id, []byte(text[:min(len(text), 2*len(id))]))
	return err == nil && n == len(id)
}

func nanoseconds(f *field, record []byte) (time.Duration, bool) {
	text, _ := f.text(record)
	n, err := strconv.ParseUint(text, 10, 63)
	return time.Duration(n), err == nil
}

// monotonic is CLOCK_MONOTONIC, by which bpf_ktime_get_ns counts.
func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

// FlushSpans sends the spans that the Programs have told of so far.
func (a *Agent) FlushSpans(ctx context.Context) error {
	if a.spans == nil {
		return nil
	}
	for _, u := range a.all() {
		if err := u.syncSpans(ctx); err != nil {
			return err
		}
	}
	return a.spans.Flush(ctx)
}

// syncSpans waits until the records that there are have become spans.
func (u *unit) syncSpans(ctx context.Context) error {
	u.use.RLock()
	defer u.use.RUnlock()
	if u.streams == nil || u.spec == nil || u.collector == nil {
		return nil
	}
	for _, s := range u.spec.Spans {
		ring, err := u.streams.Ring(s.Stream)
		if err != nil {
			return err
		}
		if err := ring.Sync(ctx); err != nil {
			return err
		}
	}
	return nil
}

// spanStats returns how many spans were sent and how many lost.
func (a *Agent) spanStats() (sent, lost uint64) {
	if a.spans == nil {
		return 0, 0
	}
	return a.spans.Stats()
}
