package series

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// readerState is one reader with the tables of its metrics.
type readerState struct {
	spec      *program.Reader
	reader    reader
	info      readerInfo
	options   *Options
	tables    []*table
	workloads *workloads
	// Decoders whose names may change, and what they said last.
	refreshers  []refresher
	generations []uint64

	started   int64     // when what is there at the first read began to count, in Unix milliseconds; 0: unknown
	lastRead  time.Time // when the last complete read began
	lastShown time.Time // the same of the last whose metrics were all wanted
	stats     ReaderStats

	// Keys of workloads that are gone, which were shown since.
	dead []byte
	// Keys that the last read left out because their workloads' names are being waited for.
	held int
	ones []byte
	// Why keys could not be deleted last time, so that it is logged once.
	reapProblem string
}

// newReaderState returns nil if none of the reader's metrics is enabled.
func newReaderState(spec *program.Spec, r *program.Reader, source Source, b *buffer, options *Options) (*readerState, error) {
	switch {
	case isCgroupStorage(spec, source, r):
		r = cgroupStorageKey(r)
	case r.Kind == program.StreamReader:
		r = streamKey(r)
	}
	var groups [][]*program.Metric
next:
	for i := range r.Metrics {
		m := &r.Metrics[i]
		if !spec.Enabled(m.When, m.Unless) {
			continue
		}
		for g := range groups {
			// Entries that lack a metric's number are in the tables of the others.
			if r.Kind != program.FieldReader && sameTable(groups[g][0], m) {
				groups[g] = append(groups[g], m)
				continue next
			}
		}
		groups = append(groups, []*program.Metric{m})
	}
	if len(groups) == 0 {
		return nil, nil
	}
	rd, info, err := newReader(spec, r, source, b, options)
	if err != nil {
		return nil, err
	}
	if r.Spread != nil {
		info.additive = true
	}
	if r.Zeros {
		info.dense = false
	}
	s := &readerState{spec: r, reader: rd, info: info, options: options, ones: bytes.Repeat([]byte{0xff}, int(r.KeySize))}
	s.started = startOf(r, source, options)
	s.workloads = newWorkloads(options.Resolver, r.Key)
	env := environment{s.workloads, options.Host, options.Directories}
	for _, group := range groups {
		labels, err := newLabelDecoders(group[0].Labels, r.KeySize, env)
		if err != nil {
			return nil, fmt.Errorf("metric %s: %w", group[0].Name, err)
		}
		if err := checkNames(group[0], labels); err != nil {
			return nil, err
		}
		t, err := newTable(r, group, labels, info, s.started)
		if err != nil {
			return nil, err
		}
		for i, m := range group {
			if m.Exemplar == nil {
				continue
			}
			labels, err := newLabelDecoders(m.Exemplar.Labels, r.ValueSize, env)
			if err != nil {
				return nil, fmt.Errorf("exemplar of metric %s: %w", m.Name, err)
			}
			t.exemplars = append(t.exemplars, exemplarLabels{i, labels})
		}
		for _, l := range labels {
			if d, ok := l.decoder.(refresher); ok {
				s.refreshers = append(s.refreshers, d)
			}
			if d, ok := l.decoder.(chain); ok {
				t.retries = t.retries || d.late
			}
		}
		s.tables = append(s.tables, t)
	}
	s.generations = make([]uint64, len(s.refreshers))
	s.stats.Reader = r.Name
	return s, nil
}

// startOf returns when a reader's values began to count.
func startOf(r *program.Reader, source Source, options *Options) int64 {
	switch r.Kind {
	case program.MapReader:
		if s, ok := source.(Starter); ok {
			if at := s.MapStarted(r.Name); !at.IsZero() {
				return at.UnixMilli()
			}
		}
		return options.Started.UnixMilli()
	case program.StreamReader:
		return options.Clock().UnixMilli()
	}
	// What iterators and files tell was counted by others, from whenever.
	return 0
}

// sameTable reports whether two metrics of a reader have the same label sets.
func sameTable(a, b *program.Metric) bool {
	return cumulative(a.Type) == cumulative(b.Type) && a.Limit == b.Limit && a.CPULabel == b.CPULabel &&
		reflect.DeepEqual(a.Labels, b.Labels) && reflect.DeepEqual(a.StaticLabels, b.StaticLabels)
}

// sameSeries reports whether o makes the same series of the same bytes, however they are shown.
func (r *readerState) sameSeries(o *readerState) bool {
	if r.info != o.info || len(r.tables) != len(o.tables) || !reflect.DeepEqual(counted(r.spec), counted(o.spec)) {
		return false
	}
	for i, t := range r.tables {
		if !slices.EqualFunc(t.metrics, o.tables[i].metrics, func(a, b cells) bool { return a.metric.Name == b.metric.Name }) {
			return false
		}
	}
	return true
}

// counted returns a reader without what does not change its series.
func counted(r *program.Reader) program.Reader {
	c := *r
	c.Metrics = slices.Clone(r.Metrics)
	for i := range c.Metrics {
		m := &c.Metrics[i]
		m.Help, m.Limit, m.When, m.Unless = "", 0, "", ""
		if m.Buckets != nil {
			m.Buckets = &program.Buckets{Schema: m.Buckets.Schema, Low: m.Buckets.Low, High: m.Buckets.High, Bounds: m.Buckets.Bounds}
		}
	}
	return c
}

// takeOver goes on as o, which has not been read yet and makes the same series.
func (r *readerState) takeOver(o *readerState) {
	if a, ok := o.reader.(adopter); ok {
		a.adopt(r.reader)
	}
	r.reader, r.options, r.spec = o.reader, o.options, o.spec
	r.workloads.adopt(o.workloads.resolver)
	for i, t := range r.tables {
		t.limit, t.foldLimit = o.tables[i].limit, o.tables[i].foldLimit
		for j := range t.metrics {
			t.metrics[j].metric = o.tables[i].metrics[j].metric
		}
	}
}

// wanted reports whether somebody wants one of the reader's metrics, and whether each is wanted by somebody.
func (r *readerState) wanted(wants []func(string) bool) (some, all bool) {
	all = true
	for _, t := range r.tables {
		for i := range t.metrics {
			name := t.metrics[i].metric.Name
			if slices.ContainsFunc(wants, func(want func(string) bool) bool { return want == nil || want(name) }) {
				some = true
			} else {
				all = false
			}
		}
	}
	return some, all
}

// collect reads everything and returns a frame for each table. all says that all of it will be shown.
func (r *readerState) collect(ctx context.Context, c *Collector, bootTime int64, all bool) ([]*frame, error) {
	begin := r.options.Clock()
	frames, entries, err := r.read(ctx, c, begin, bootTime)
	s := &r.stats
	s.Time, s.Duration, s.Err = begin, r.options.Clock().Sub(begin), err
	if err != nil {
		return nil, err
	}
	if all {
		r.lastShown = begin
	} else {
		r.dead = r.dead[:0]
	}
	s.Entries, s.Series, s.FoldedSeries, s.CutSeries, s.Unresolved, s.FailedInserts = entries, 0, 0, 0, 0, 0
	if z, ok := r.reader.(sized); ok {
		s.Capacity = z.capacity()
	}
	for i, t := range r.tables {
		s.Series += len(frames[i].series) * len(t.metrics)
		if over := t.folded + t.previousUntracked; t.cumulative {
			s.FoldedSeries += over
		} else {
			s.CutSeries += over
		}
		s.Unresolved = max(s.Unresolved, t.unresolved)
		s.FailedInserts = max(s.FailedInserts, t.overflowed)
	}
	s.Unresolved += r.held
	return frames, nil
}

func (r *readerState) read(ctx context.Context, c *Collector, begin time.Time, bootTime int64) (frames []*frame, entries int, err error) {
	p, err := r.reader.open()
	if err != nil {
		return nil, 0, err
	}
	r.logProblem(r.reap(ctx))
	rename := false
	for i, d := range r.refreshers {
		if g := d.generation(begin); g != r.generations[i] {
			r.generations[i], rename = g, true
		}
	}
	r.workloads.begin()
	r.held = 0
	start := r.started
	if !r.lastRead.IsZero() {
		start = r.lastRead.UnixMilli()
	}
	c.mu.Lock()
	for _, t := range r.tables {
		frames = append(frames, t.takeFrame())
	}
	c.mu.Unlock()
	for i, t := range r.tables {
		t.bootTime = bootTime
		t.begin(frames[i], start, begin.UnixMilli(), rename)
	}
	err = r.reader.read(ctx, func(keys, values []byte, n int) {
		entries += n
		keySize, valueSize := int(r.spec.KeySize), p.count*p.stride
		for i := range n {
			r.record(keys[i*keySize:(i+1)*keySize], values[i*valueSize:(i+1)*valueSize], p)
		}
	})
	if err != nil {
		for _, t := range r.tables {
			t.abandon()
		}
		r.dead = r.dead[:0]
		return nil, 0, err
	}
	for _, t := range r.tables {
		t.finish()
	}
	r.workloads.finish()
	r.lastRead = begin
	return frames, entries, nil
}

// record hands one key to all tables.
func (r *readerState) record(key, value []byte, p parts) {
	if r.spec.Overflow && bytes.Equal(key, r.ones) {
		for _, t := range r.tables {
			t.recordOverflow(value, p)
		}
		return
	}
	if r.spec.Only != nil && !bytes.Equal(key, r.spec.Only) {
		return
	}
	renamed, held := false, false
	if r.workloads.field != nil {
		w := r.workloads.get(workload.ID(r.workloads.field.Number(key)))
		switch w.state {
		case workload.Outside:
			return
		case workload.Gone:
			if r.remover() != nil && !w.workload.Pending && len(r.dead) < maxReaped*len(key) {
				r.dead = append(r.dead, key...)
			}
		}
		if w.workload.Unselected {
			return
		}
		if held = w.workload.Pending && !w.shown; held {
			r.held++
		} else {
			w.shown = true
		}
		renamed = w.renamed
		for _, field := range r.workloads.others {
			if r.workloads.get(workload.ID(field.Number(key))).renamed {
				renamed = true
			}
		}
	}
	lacking, _ := r.reader.(sparse)
	for _, t := range r.tables {
		if held && t.named {
			continue
		}
		if lacking == nil || !lacking.absent(t.metrics[0].metric) {
			t.record(key, value, p, renamed, r.info.dense)
		}
	}
}

func (t *table) takeFrame() *frame {
	if n := len(t.free); n > 0 {
		f := t.free[n-1]
		t.free = t.free[:n-1]
		return f
	}
	return &frame{}
}
