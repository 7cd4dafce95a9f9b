package ebpfexporter

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
)

func (b *builder) span(s *span) {
	if s.ringbuf == "" {
		b.problem(s.place, "it names no ring buffer", "write ringbuf: MAP")
		return
	}
	m := b.findMap(s.place+".ringbuf", s.ringbuf)
	if m == nil {
		return
	}
	if m.Type != ebpf.RingBuf {
		b.problem(s.place+".ringbuf", fmt.Sprintf("the map %s is of type %s", s.ringbuf, m.Type), "declare it as BPF_MAP_TYPE_RINGBUF")
		return
	}
	for _, other := range b.spec.Spans {
		if other.Stream == s.ringbuf {
			b.problem(s.place+".ringbuf", fmt.Sprintf("other spans are made from %s already", s.ringbuf), "use a ring buffer for each kind of span")
			return
		}
	}
	fields, ok := b.key(s.labels)
	if !ok {
		return
	}
	out := program.Span{Stream: s.ringbuf, Name: s.name, Service: s.service,
		Static: []program.StaticLabel{{Name: "ebpf_exporter.config", Value: b.configName()}}}
	if out.Name == "" {
		out.Name = s.ringbuf
	}
	stream := program.Stream{Name: s.ringbuf, Help: "Records that spans are made of.", Fields: fields}
	for i := range fields {
		l := &fields[i]
		stream.RecordSize = l.Field.Offset + l.Field.Size
		special := map[string]**program.Label{
			"trace_id": &out.TraceID, "span_id": &out.SpanID, "parent_span_id": &out.ParentID,
			"span_monotonic_timestamp_ns": &out.Start, "span_duration_ns": &out.Duration, "span_name": &out.NameField,
		}[l.Name]
		if special == nil {
			out.Attributes = append(out.Attributes, *l)
			continue
		}
		*special = l
		if want := map[string]uint32{"trace_id": 16, "span_id": 8, "parent_span_id": 8}[l.Name]; want > 0 &&
			(l.Field.Size != want || len(l.Steps) != 1 || l.Steps[0].Name != "hex") {
			b.problem(s.labels[i].place, fmt.Sprintf("%s is an identifier of %d bytes", l.Name, want), fmt.Sprintf("write size: %d and decoders: [{name: hex}]", want))
			return
		}
	}
	b.spec.Streams = append(b.spec.Streams, stream)
	b.spec.Spans = append(b.spec.Spans, out)
}
