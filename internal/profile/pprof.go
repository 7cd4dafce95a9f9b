package profile

import (
	"fmt"
	"io"

	"github.com/google/pprof/profile"
)

// WritePprof writes the profile in pprof's format, compressed: samples and CPU nanoseconds. Addresses are those
// of files, not of processes, so that processes that run the same file share them.
func (p *Profile) WritePprof(w io.Writer) error {
	b := &pprofBuilder{
		profile: &profile.Profile{
			SampleType:        []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
			DefaultSampleType: "cpu",
			PeriodType:        &profile.ValueType{Type: "cpu", Unit: "nanoseconds"},
			Period:            int64(p.Period),
			TimeNanos:         p.Begun.UnixNano(),
			DurationNanos:     int64(p.Duration),
		},
		kernelBuildID: p.kernelBuildID,
		mappings:      map[mappingKey]*profile.Mapping{},
		functions:     map[functionKey]*profile.Function{},
		locations:     map[*Frame]*profile.Location{},
	}
	for i := range p.Samples {
		b.sample(&p.Samples[i])
	}
	if err := b.profile.CheckValid(); err != nil {
		return fmt.Errorf("make a pprof profile: %w", err)
	}
	if err := b.profile.Write(w); err != nil {
		return fmt.Errorf("write the pprof profile: %w", err)
	}
	return nil
}

type pprofBuilder struct {
	profile       *profile.Profile
	kernelBuildID string
	mappings      map[mappingKey]*profile.Mapping
	functions     map[functionKey]*profile.Function
	locations     map[*Frame]*profile.Location
}

type mappingKey struct {
	path, buildID string
	segment       Segment
}

type functionKey struct{ name, symbol, path string }

// kernelMapping is what pprof's tools call the kernel.
const kernelMapping = "[kernel.kallsyms]"

func (b *pprofBuilder) sample(s *Sample) {
	sample := &profile.Sample{
		Value:    []int64{int64(s.Count), int64(s.Nanoseconds)},
		Label:    map[string][]string{},
		NumLabel: map[string][]int64{"pid": {int64(s.PID)}},
	}
	s.eachLabel(func(name, value string) { sample.Label[name] = []string{value} })
	for _, f := range s.Stack {
		sample.Location = append(sample.Location, b.location(f))
	}
	b.profile.Sample = append(b.profile.Sample, sample)
}

func (b *pprofBuilder) location(f *Frame) *profile.Location {
	if l := b.locations[f]; l != nil {
		return l
	}
	l := &profile.Location{ID: uint64(len(b.profile.Location) + 1), Address: f.Address, Mapping: b.mapping(f)}
	// What has no name is left to pprof, which may know where to find symbols by the build id.
	if f.Name != "" || f.Binary == nil {
		l.Line = []profile.Line{{Function: b.function(f)}}
	}
	if l.Mapping != nil && f.Name != "" {
		l.Mapping.HasFunctions = true
	}
	b.locations[f] = l
	b.profile.Location = append(b.profile.Location, l)
	return l
}

func (b *pprofBuilder) mapping(f *Frame) *profile.Mapping {
	key := mappingKey{}
	switch {
	case f.missing == lostStack:
		return nil
	case f.Kernel:
		// The upper half of all addresses.
		key = mappingKey{kernelMapping, b.kernelBuildID, Segment{Address: 1 << 63, Size: 1<<63 - 1}}
	case f.Binary == nil:
		return nil
	default:
		key = mappingKey{path: f.Binary.Path, buildID: f.Binary.BuildID}
		for _, s := range f.Binary.Segments {
			if f.Address >= s.Address && f.Address-s.Address < s.Size {
				key.segment = s
			}
		}
	}
	m := b.mappings[key]
	if m == nil {
		m = &profile.Mapping{
			ID: uint64(len(b.profile.Mapping) + 1), File: key.path, BuildID: key.buildID,
			Start: key.segment.Address, Limit: key.segment.Address + key.segment.Size, Offset: key.segment.Offset,
		}
		b.mappings[key] = m
		b.profile.Mapping = append(b.profile.Mapping, m)
	}
	return m
}

func (b *pprofBuilder) function(f *Frame) *profile.Function {
	key := functionKey{name: f.label(), symbol: f.Symbol}
	if f.Binary != nil {
		key.path = f.Binary.Path
	}
	function := b.functions[key]
	if function == nil {
		function = &profile.Function{ID: uint64(len(b.profile.Function) + 1), Name: key.name, SystemName: key.symbol}
		b.functions[key] = function
		b.profile.Function = append(b.profile.Function, function)
	}
	return function
}
