package program

import "slices"

// WithoutCode returns what remains of interest once the code is loaded: a copy that has no Collection and shares the rest.
func (s *Spec) WithoutCode() *Spec {
	c := *s
	c.Collection = nil
	return &c
}

// Clone returns a copy whose slices may be changed; the collection is copied too.
func (s *Spec) Clone() *Spec {
	c := *s
	c.Collection = s.Collection.Copy()
	c.Hooks = slices.Clone(s.Hooks)
	c.Params = slices.Clone(s.Params)
	c.Streams = slices.Clone(s.Streams)
	c.Spans = slices.Clone(s.Spans)
	c.Symbols = slices.Clone(s.Symbols)
	c.KernelConfig = slices.Clone(s.KernelConfig)
	c.CgroupSets = slices.Clone(s.CgroupSets)
	c.Readers = slices.Clone(s.Readers)
	for i := range c.Readers {
		r := &c.Readers[i]
		r.Key = slices.Clone(r.Key)
		r.Metrics = slices.Clone(r.Metrics)
		for j := range r.Metrics {
			m := &r.Metrics[j]
			m.Labels = slices.Clone(m.Labels)
			m.StaticLabels = slices.Clone(m.StaticLabels)
			if m.Buckets != nil {
				b := *m.Buckets
				m.Buckets = &b
			}
		}
	}
	return &c
}
