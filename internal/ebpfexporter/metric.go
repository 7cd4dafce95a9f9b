package ebpfexporter

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
)

// maxBuckets bounds what each series of a histogram takes in memory.
const maxBuckets = 1 << 14

// cpuLabel is the last label of a per-CPU map whose values are to be kept apart: it is not in the key.
const cpuLabel = "cpu"

func (b *builder) counter(c *counter) {
	metric := b.metric(c.place, c.name, c.help, program.Counter)
	if metric == nil {
		return
	}
	m := b.findMap(c.place+".name", c.name)
	if m == nil {
		return
	}
	if c.perfEvents {
		b.perfCounter(c, m, metric)
		return
	}
	if c.flushInterval != 0 {
		b.doubt(c.place+".flush_interval", "it does nothing without perf_event_array: true", "remove it")
	}
	if !b.readable(c.place, m) {
		return
	}
	reader := program.Reader{Name: c.name, Kind: program.MapReader, KeySize: m.KeySize, ValueSize: 8, Zeros: true}
	labels := c.labels
	if n := len(labels); n > 0 && isPerCPU(m.Type) && labels[n-1].name == cpuLabel && total(labels) == m.KeySize+labels[n-1].size {
		if l := labels[n-1]; l.size != 2 || len(l.decoders) != 1 || l.decoders[0].name != "uint" {
			b.problem(l.place, "the label cpu of a per-CPU map is the CPU's number", "write size: 2 and decoders: [{name: uint}]")
			return
		}
		metric.CPULabel = true
		labels = labels[:n-1]
	}
	switch {
	case len(labels) > 0:
		if !b.matches(c.place, labels, m) {
			return
		}
	case m.KeySize != 4:
		b.problem(c.place, fmt.Sprintf("without labels the key must be a u32, but the map's keys have %d bytes", m.KeySize), "add labels, or declare __type(key, u32)")
		return
	default:
		reader.Only = make([]byte, 4)
	}
	key, ok := b.key(labels)
	if !ok {
		return
	}
	reader.Key = key
	metric.Labels = sorted(key)
	metric.Cells = []program.Field{{Size: 8}}
	reader.Metrics = []program.Metric{*metric}
	b.spec.Readers = append(b.spec.Readers, reader)
}

// perfCounter counts the records of a perf event array by their labels.
func (b *builder) perfCounter(c *counter, m *ebpf.MapSpec, metric *program.Metric) {
	if m.Type != ebpf.PerfEventArray {
		b.problem(c.place+".perf_event_array", fmt.Sprintf("the map %s is of type %s", c.name, m.Type), "declare it as BPF_MAP_TYPE_PERF_EVENT_ARRAY, or remove the line")
		return
	}
	fields, ok := b.key(c.labels)
	if !ok {
		return
	}
	aggregate := &program.Aggregate{Reset: c.flushInterval}
	if aggregate.Reset == 0 {
		aggregate.Reset = defaultFlush
	}
	reader := program.Reader{Name: c.name, Kind: program.StreamReader, Stream: c.name, Aggregate: aggregate, ValueSize: 8}
	stream := program.Stream{Name: c.name, Help: c.help, Fields: fields}
	for _, l := range fields {
		aggregate.Keys = append(aggregate.Keys, l.Field)
		stream.RecordSize = l.Field.Offset + l.Field.Size
		l.Field.Offset = reader.KeySize
		reader.KeySize += l.Field.Size
		reader.Key = append(reader.Key, l)
	}
	metric.Labels = sorted(reader.Key)
	metric.Cells = []program.Field{{Size: 8}}
	reader.Metrics = []program.Metric{*metric}
	b.spec.Streams = append(b.spec.Streams, stream)
	b.spec.Readers = append(b.spec.Readers, reader)
}

func (b *builder) histogram(h *histogram) {
	metric := b.metric(h.place, h.name, h.help, program.Histogram)
	if metric == nil {
		return
	}
	m := b.findMap(h.place+".name", h.name)
	if m == nil || !b.readable(h.place, m) {
		return
	}
	if len(h.labels) == 0 {
		b.problem(h.place, "it has no labels, but the last one is the number of the bucket", "add a label: {name: bucket, size: 4, decoders: [{name: uint}]}")
		return
	}
	if !b.matches(h.place, h.labels, m) {
		return
	}
	last := len(h.labels) - 1
	bucket := &h.labels[last]
	switch {
	case len(bucket.decoders) != 1 || bucket.decoders[0].name != "uint":
		b.problem(bucket.place, "the last label is the number of the bucket", "write decoders: [{name: uint}]")
		return
	case bucket.size != 1 && bucket.size != 2 && bucket.size != 4 && bucket.size != 8:
		b.problem(bucket.place+".size", fmt.Sprintf("a number has no %d bytes", bucket.size), "write 1, 2, 4 or 8")
		return
	}
	labels, ok := b.key(h.labels[:last])
	if !ok {
		return
	}
	spread := &program.Spread{Bucket: program.Field{Offset: total(h.labels[:last]), Size: bucket.size}}
	metric.Buckets = b.buckets(h, spread)
	if metric.Buckets == nil {
		return
	}
	metric.Labels = sorted(labels)
	metric.Scale = program.Scale{Factor: h.multiplier}
	metric.Cells = []program.Field{{Size: 8}}
	key := append(labels, program.Label{Name: bucket.name, Member: bucket.name, Field: spread.Bucket, Decoder: "uint"})
	b.spec.Readers = append(b.spec.Readers, program.Reader{
		Name: h.name, Kind: program.MapReader, KeySize: m.KeySize, ValueSize: 8, Zeros: true,
		Key: key, Spread: spread, Metrics: []program.Metric{*metric},
	})
}

// buckets describes the slots: their numbers in keys go to spread, what they are shown as is returned.
func (b *builder) buckets(h *histogram, spread *program.Spread) *program.Buckets {
	if h.multiplier == 0 {
		h.multiplier = 1 // as if it were not there
	}
	if h.multiplier < 0 {
		b.problem(h.place+".bucket_multiplier", "it is negative, so the buckets' bounds would descend", "write a positive number")
		return nil
	}
	var bound func(n float64) float64
	switch h.bucketType {
	case "exp2":
		bound = math.Exp2
	case "exp2zero":
		bound = func(n float64) float64 {
			if n == 0 {
				return 0
			}
			return math.Exp2(n - 1)
		}
	case "linear", "fixed":
		bound = func(n float64) float64 { return n }
	case "":
		b.problem(h.place, "it has no bucket_type", "write exp2, exp2zero, linear or fixed")
		return nil
	default:
		b.problem(h.place+".bucket_type", fmt.Sprintf("%q is unknown", clip(h.bucketType)), "write exp2, exp2zero, linear or fixed")
		return nil
	}
	var numbers []float64
	if h.bucketType == "fixed" {
		if numbers = h.keys; len(numbers) == 0 {
			b.problem(h.place, "fixed buckets need bucket_keys", "write bucket_keys: [NUMBER, ...]")
			return nil
		}
		if !slices.IsSorted(numbers) {
			b.problem(h.place+".bucket_keys", "the keys don't ascend", "sort them")
			return nil
		}
		spread.Numbers, spread.Sum = numbers, numbers[len(numbers)-1]+1
	} else {
		if len(h.keys) > 0 {
			b.doubt(h.place+".bucket_keys", "it does nothing but for fixed buckets", "remove it")
		}
		switch {
		case h.max <= h.min:
			b.problem(h.place, fmt.Sprintf("there are no buckets from bucket_min %d to bucket_max %d", h.min, h.max), "write a bucket_max above bucket_min")
			return nil
		case h.max-h.min >= maxBuckets || h.min < -maxBuckets || h.max > 1<<53:
			b.problem(h.place, fmt.Sprintf("there are more than %d buckets from bucket_min %d to bucket_max %d", maxBuckets, h.min, h.max), "count more coarsely")
			return nil
		}
		for n := h.min; n <= h.max; n++ {
			numbers = append(numbers, float64(n))
		}
		spread.First, spread.Sum = h.min, float64(h.max+1)
		// Numbers are decoded as unsigned ones, which are never negative, unless the buckets are.
		spread.Bucket.Signed = h.min < 0
	}
	buckets := &program.Buckets{}
	for _, n := range numbers {
		upper := bound(n) * h.multiplier
		if count := len(buckets.Upper); math.IsInf(upper, 0) || count > 0 && upper <= buckets.Upper[count-1] {
			b.problem(h.place, fmt.Sprintf("the bucket %v ends at %v, not above the one before it", n, upper), "check bucket_min, bucket_max, bucket_keys and bucket_multiplier")
			return nil
		}
		buckets.Upper = append(buckets.Upper, upper)
	}
	return buckets
}

func isPerCPU(t ebpf.MapType) bool {
	return t == ebpf.PerCPUHash || t == ebpf.LRUCPUHash || t == ebpf.PerCPUArray
}

// readable checks the map of a metric.
func (b *builder) readable(at place, m *ebpf.MapSpec) bool {
	switch m.Type {
	case ebpf.Hash, ebpf.LRUHash, ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.Array, ebpf.PerCPUArray, ebpf.LPMTrie:
	case ebpf.PerfEventArray:
		b.problem(at, fmt.Sprintf("the map %s carries events", m.Name), "write perf_event_array: true")
		return false
	default:
		b.problem(at, fmt.Sprintf("the map %s is of type %s, which is no metric", m.Name, m.Type), "use a hash or an array")
		return false
	}
	if m.ValueSize != 8 {
		b.problem(at, fmt.Sprintf("the values of the map %s have %d bytes", m.Name, m.ValueSize), "declare __type(value, u64)")
		return false
	}
	return true
}

// total is what labels take of a key.
func total(labels []label) uint32 {
	var n uint32
	for _, l := range labels {
		n += l.size + l.padding
	}
	return n
}

func sorted(labels []program.Label) []program.Label {
	labels = slices.Clone(labels)
	slices.SortStableFunc(labels, func(a, b program.Label) int { return cmp.Compare(a.Name, b.Name) })
	return labels
}

// key makes labels of the bytes of a key.
func (b *builder) key(labels []label) (key []program.Label, ok bool) {
	ok = true
	var offset uint32
	seen := map[string]bool{}
	for i := range labels {
		l := &labels[i]
		switch {
		case l.name == "":
			b.problem(l.place, "it has no name", "write name:")
			ok = false
		case !validLabel(l.name) || strings.HasPrefix(l.name, "__"):
			b.problem(l.place+".name", fmt.Sprintf("%q is no label's name", clip(l.name)), "use letters, digits and _")
			ok = false
		case l.name == "overflow" || l.name == "le":
			b.problem(l.place+".name", fmt.Sprintf("the label %s has a meaning of its own", l.name), "give it another name")
			ok = false
		case seen[l.name]:
			b.problem(l.place+".name", fmt.Sprintf("there are two labels %s", l.name), "give one of them another name")
			ok = false
		}
		seen[l.name] = true
		if l.size == 0 {
			b.problem(l.place, "it has no size", "write the bytes that the member takes")
			ok = false
		}
		steps, good := b.steps(l)
		ok = ok && good
		key = append(key, program.Label{
			Name: l.name, Member: l.name, Field: program.Field{Offset: offset, Size: l.size}, Decoder: "chain", Steps: steps,
		})
		offset += l.size + l.padding
	}
	return key, ok
}
